-- Schedules as they are stored.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 bytes, after which no further one is read  3… names
-- Returns for as many of the names, from the first on, as it came to: {fields and values, ticks}, without any where there
-- is none.

local left = tonumber(ARGV[2])
local wrong = other_layout()
if wrong then
  return wrong
end
local shown = {}
for i = 3, #ARGV do
  local fields = call('HGETALL', ENTRY .. ARGV[i])
  shown[#shown + 1] = { fields, call('LRANGE', TICKED .. ARGV[i], 0, -1) }
  for n = 1, #fields do
    left = left - #fields[n]
  end
  if left < 0 then
    break
  end
end
return shown
