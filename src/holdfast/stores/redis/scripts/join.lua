-- Gives a worker its row in a queue's slot: as it stands in the registry, but steady only for as long as beats of anybody
-- came to this slot without a pause.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 lease in ms  3 worker  4 its row in the registry
-- Returns "joined" (also if it was there), "gone" (it was retired here), "empty" (there is no such queue).
local moment, lease, worker = now(tonumber(ARGV[1])), tonumber(ARGV[2]), ARGV[3]
local wrong = unsound()
if wrong then
  return wrong
end
local said = call('HMGET', META, 'layout', 'beaten', 'steady')
if call('HEXISTS', LOSSES, worker) == 1 then
  return 'gone'
elseif life_of(call('HGET', WORKERS, worker)) then
  return 'joined'
elseif not said[1] and not is_there() then
  return 'empty'
end
local running = not said[1] and held_by_all()
local life = life_of(ARGV[4])
local steady = tonumber(said[3]) or 0
if said[2] and is_pause(tonumber(said[2]), moment, lease) then
  steady = moment
end
life.steady = math.max(life.steady, steady)

begin_writes(WORKERS)
if running then
  make_meta(running)
end
call('HSET', WORKERS, worker, as_row(life))
return 'joined'
