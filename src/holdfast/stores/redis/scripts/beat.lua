-- Renews leases in a queue's slot, of those workers that have a row there; and notes that the slot heard a beat, which is
-- what tells those who join it late whether others could beat here too.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 lease in ms  3… workers
-- Returns whether there is such a queue (1 or 0).
local moment, lease = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local wrong = unsound()
if wrong then
  return wrong
end
local said = call('HMGET', META, 'layout', 'beaten')
if not said[1] and not is_there() then
  return 0
end
local running = not said[1] and held_by_all()
local lives = {}
for i = 3, #ARGV do
  lives[ARGV[i]] = life_of(call('HGET', WORKERS, ARGV[i]))
end

begin_writes(META)
if running then
  make_meta(running)
end
if said[2] and is_pause(tonumber(said[2]), moment, lease) then
  call('HSET', META, 'beaten', moment, 'steady', moment)
else
  call('HSET', META, 'beaten', moment)
end
for worker, life in pairs(lives) do
  renew(life, moment, lease)
  call('HSET', WORKERS, worker, as_row(life))
end
return 1
