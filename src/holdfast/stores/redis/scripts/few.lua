-- The unfinished jobs of some states, where they are few: in one moment, or one that changes its state meanwhile would be
-- missed.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2 how many are few  3 states, in words  4 the worker whose running jobs are meant; '' for all workers
-- Returns their ids; false where they are more.

local most, states, worker = tonumber(ARGV[2]), ' ' .. ARGV[3] .. ' ', ARGV[4]
local running = string.find(states, ' running ', 1, true)
local indexes, count = {}, 0
for state, index in pairs({ queued = READY, scheduled = DUE }) do
  if string.find(states, ' ' .. state .. ' ', 1, true) then
    indexes[#indexes + 1] = index
    count = count + call('ZCARD', index)
  end
end
if running then
  count = count + (worker ~= '' and call('HLEN', HELD .. worker) or tonumber(call('HGET', META, 'running')) or 0)
end
if count > most then
  return false
end

local ids = {}
local function add(some)
  for i = 1, #some do
    ids[#ids + 1] = some[i]
  end
end
for i = 1, #indexes do
  add(call('ZRANGE', indexes[i], 0, -1))
end
if running then
  local workers = worker ~= '' and { worker } or call('HKEYS', HOLDERS)
  for i = 1, #workers do
    add(call('HKEYS', HELD .. workers[i]))
  end
end
return ids
