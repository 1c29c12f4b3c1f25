-- Schedules of this queue whose next tick is due, the earliest first; and such as are on their way to another queue.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many at most  3 bytes, after which no further one is read
-- Returns the time, how many more are due, when the next of the others will be ('' where there is none), and of each its
-- name, its fields and their values.

local moment, most, left = now(tonumber(ARGV[1])), tonumber(ARGV[2]), tonumber(ARGV[3])
local wrong = other_layout()
if wrong then
  return wrong
end
local count = call('ZCOUNT', TICKS, '-inf', moment)
local names = most > 0 and call('ZRANGEBYSCORE', TICKS, '-inf', moment, 'LIMIT', 0, most) or {}
local coming = call('ZRANGEBYSCORE', TICKS, '(' .. string.format('%.0f', moment), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local shown = { moment, 0, coming[2] or '' }
for i = 1, #names do
  local fields = call('HGETALL', ENTRY .. names[i])
  shown[#shown + 1] = { names[i], unpack(fields) }
  for n = 1, #fields do
    left = left - #fields[n]
  end
  if left < 0 then
    break
  end
end
shown[2] = count - (#shown - 3)
return shown
