-- Ends a worker's life in a queue's slot, once: what it holds there may be taken over at once.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 worker  3 whether the registry knows it ("1"): then it is retired here too where it never was, so that
--       it cannot join late  4 loss of all that it holds ('': nobody said)  5… per named job: id, fence, loss
-- Returns whether it ended just now (1 or 0).
local moment, worker = now(tonumber(ARGV[1])), ARGV[2]
local wrong = unsound()
if wrong then
  return wrong
end
if call('HEXISTS', LOSSES, worker) == 1 or not is_there() then
  return 0
end
if call('HEXISTS', WORKERS, worker) == 0 and call('HEXISTS', HOLDERS, worker) == 0 and ARGV[3] ~= '1' then
  return 0
end
local last = string.format('%.0f %s', moment, ARGV[4])
local lost, named = {}, {}
for _, line in ipairs(call('SMEMBERS', MAIL .. worker)) do
  if string.sub(line, 1, 5) == 'lost ' then
    lost[#lost + 1] = line
  end
end
for i = 5, #ARGV, 3 do
  local id = ARGV[i]
  if call('HEXISTS', HELD .. worker, id) == 1 then
    local said = call('HMGET', JOB .. id, 'fence', 'loss')
    if said[1] == ARGV[i + 1] and (not said[2] or said[2] == '') then
      named[id] = ARGV[i + 2]
    end
  end
end

call('HDEL', WORKERS, worker) -- a full server takes this, and all that a script writes after it
call('HSET', LOSSES, worker, last)
for i = 1, #lost do
  call('SREM', MAIL .. worker, lost[i])
end
for id, loss in pairs(named) do
  call('HSET', JOB .. id, 'loss', loss, 'odd', '1')
end
return 1
