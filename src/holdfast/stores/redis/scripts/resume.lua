-- Ends the pause of a queue, and wakes all who wait for its jobs.
-- KEYS  the queue's 13
-- ARGV  1 shift
-- Returns whether it was paused (1 or 0).

local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end
local paused = call('HGET', META, 'paused')

if paused then
  call('HDEL', META, 'paused')
  ring(true)
end
return is_paused(paused, moment) and 1 or 0
