-- Opens a worker's life, or renews its lease. A retired one stays retired.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 worker  3 facts: JSON of [supervisor or null, facts]
-- Returns {lease in ms, the time, {names of queues}}.
local QUEUES, ROWS, FACTS = KEYS[2], KEYS[3], KEYS[4]
local moment, worker = now(tonumber(ARGV[1])), ARGV[2]
local lease, wrong = lease_of_registry()
if wrong then
  return wrong
end
local life = life_of(redis.call('HGET', ROWS, worker))
local names = redis.call('SMEMBERS', QUEUES)

begin_writes(ROWS)
if not life then
  life = { till = moment + lease, beat = moment, steady = moment }
  redis.call('HSET', FACTS, worker, ARGV[3])
elseif not life.retired then
  renew(life, moment, lease)
end
redis.call('HSET', ROWS, worker, as_row(life))
return { lease, moment, names }
