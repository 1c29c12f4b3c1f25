-- Renews leases in the registry.
-- KEYS  the registry's 4
-- ARGV  1 shift  2… workers
-- Returns {lease in ms, the time, {who of them is alive}, {names of queues}}.
local QUEUES, ROWS = KEYS[2], KEYS[3]
local moment = now(tonumber(ARGV[1]))
local lease, wrong = lease_of_registry()
if wrong then
  return wrong
end
local alive, lives = {}, {}
for i = 2, #ARGV do
  local life = life_of(redis.call('HGET', ROWS, ARGV[i]))
  if life and not life.retired then
    alive[#alive + 1], lives[#lives + 1] = ARGV[i], life
  end
end
local names = redis.call('SMEMBERS', QUEUES)

begin_writes(ROWS)
for i = 1, #alive do
  renew(lives[i], moment, lease)
  redis.call('HSET', ROWS, alive[i], as_row(lives[i]))
end
return { lease, moment, alive, names }
