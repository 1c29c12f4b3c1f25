-- Drops what of the history is older than it is kept.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 for how many ms minutes are kept, 3 and steps of ten  4 how many steps at most
-- Returns how many it dropped.

local moment, most = now(tonumber(ARGV[1])), tonumber(ARGV[4])
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local dropped = 0
local kept = { minutes = moment - ARGV[2], tens = moment - ARGV[3] }
local old = {}
for name, before in pairs(kept) do
  local limit = '(' .. string.format('%.0f', before)
  old[name] = redis.call('ZRANGEBYSCORE', BASE .. name, '-inf', limit, 'LIMIT', 0, most)
  for i = 1, #old[name] do
    redis.call('EXISTS', BASE .. name .. ':' .. old[name][i])
  end
end

for name, starts in pairs(old) do
  for i = 1, #starts do
    redis.call('ZREM', BASE .. name, starts[i])
    redis.call('DEL', BASE .. name .. ':' .. starts[i])
  end
  dropped = dropped + #starts
end
return dropped
