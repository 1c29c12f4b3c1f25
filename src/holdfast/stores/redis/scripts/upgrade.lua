-- Says that what stands under the prefix is of a later layout from now on, of which every queue needs nothing new.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 the layout that was found  3 the layout from now on  4 oldest_code
-- Returns 1 if it was done now, 0 if it is another one than was found.

local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local found, layout, oldest_code = redis.call('HGET', KEYS[1], 'layout'), tonumber(ARGV[3]), tonumber(ARGV[4])
if not layout or not oldest_code or oldest_code > layout then
  return redis.error_reply('HFARGS layout')
end
if found ~= ARGV[2] then
  return 0
end

redis.call('HSET', KEYS[1], 'layout', ARGV[3], 'oldest_code', ARGV[4])
return 1
