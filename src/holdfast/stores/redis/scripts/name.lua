-- Says where a schedule is to be found, if what is said of it so far is just what its writer has read.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 name  3 what he has read, '' for nothing  4 what is said now, '' for nothing
-- Returns what is said of it now.

local NAMES = string.sub(KEYS[1], 1, -5) .. 'schedules'
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local said = redis.call('HGET', NAMES, ARGV[2]) or ''
if said ~= ARGV[3] or said == ARGV[4] then
  return said
end

if ARGV[4] == '' then
  redis.call('HDEL', NAMES, ARGV[2])
else
  redis.call('HSET', NAMES, ARGV[2], ARGV[4])
end
return ARGV[4]
