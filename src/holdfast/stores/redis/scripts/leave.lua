-- Ends a worker's life in the registry, once.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 worker
-- Returns {whether the registry knows it (1 or 0), {names of queues}}.
local QUEUES, ROWS = KEYS[2], KEYS[3]
local moment, worker = now(tonumber(ARGV[1])), ARGV[2]
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local life = life_of(redis.call('HGET', ROWS, worker))
local names = redis.call('SMEMBERS', QUEUES)

if life and not life.retired then
  life.retired, life.till = moment, moment
  begin_writes(ROWS)
  redis.call('HSET', ROWS, worker, as_row(life))
end
return { life and 1 or 0, names }
