-- What time it is, and which queues are known.
-- KEYS  the registry's 4: {P}:meta  {P}:queues  {P}:workers  {P}:facts
-- ARGV  1 shift
-- Returns the moment in ms, and a list of the names.

return { now(tonumber(ARGV[1])), redis.call('SMEMBERS', KEYS[2]) }
