-- Every worker whose row is kept.
-- KEYS  the registry's 4
-- ARGV  1 shift
-- Returns the time, workers and their rows, workers and their facts.

local moment = now(tonumber(ARGV[1]))
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
return { moment, redis.call('HGETALL', KEYS[3]), redis.call('HGETALL', KEYS[4]) }
