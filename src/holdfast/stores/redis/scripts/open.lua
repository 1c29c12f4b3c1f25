-- What there is under the prefix, and the registry's first key where there is nothing yet.
-- KEYS  1 {P}:meta  2 {P}:queues  3 {P}:workers  4 {P}:facts
-- ARGV  1 shift  2 whether to create ("1")  3 layout  4 oldest_code  5 lease in ms  6 the store's id if it is made
-- Returns layout, oldest_code, lease, store, when it was made, whether just now (1 or 0), what time it is; false where
-- there is none.

local meta, moment = KEYS[1], now(tonumber(ARGV[1]))
local found = redis.call('HMGET', meta, 'layout', 'oldest_code', 'lease', 'store', 'made')
local fields = redis.call('HLEN', meta)
redis.call('SCARD', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[4])

if fields > 0 or ARGV[2] ~= '1' then
  redis.call('HDEL', meta, '') -- a server that takes no writes says so
  return fields > 0 and { found[1] or '', found[2] or '', found[3] or '', found[4] or '', found[5] or '0', 0, moment }
end
redis.call(
  'HSET', meta, 'layout', ARGV[3], 'oldest_code', ARGV[4], 'lease', ARGV[5], 'store', ARGV[6], 'made', moment
)
return { ARGV[3], ARGV[4], ARGV[5], ARGV[6], string.format('%.0f', moment), 1, moment }
