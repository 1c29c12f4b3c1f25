-- Takes the rows of workers out of the registry that are still over.
-- KEYS  the registry's 4
-- ARGV  1 shift  2… workers
-- Returns how many.
local ROWS, FACTS, REPORTERS = KEYS[3], KEYS[4], string.sub(KEYS[1], 1, -5) .. 'reporters'
local moment = now(tonumber(ARGV[1]))
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
redis.call('HLEN', REPORTERS)
local gone = {}
for i = 2, #ARGV do
  local row = redis.call('HGET', ROWS, ARGV[i])
  local life = life_of(row)
  if row and (not life or is_over(life, moment)) then
    gone[#gone + 1] = ARGV[i]
  end
end

if #gone > 0 then
  redis.call('HDEL', ROWS, unpack(gone))
  redis.call('HDEL', FACTS, unpack(gone))
  redis.call('HDEL', REPORTERS, unpack(gone))
end
return #gone
