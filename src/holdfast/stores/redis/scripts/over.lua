-- Workers whose rows are over, where nothing is held under them: some of the registry at a time.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 cursor: 0 at first  3 how many rows, about
-- Returns {the next cursor (0: that was all), {workers}}.
local ROWS = KEYS[3]
local moment = now(tonumber(ARGV[1]))
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local page = redis.call('HSCAN', ROWS, ARGV[2], 'COUNT', ARGV[3])
local workers = {}
for i = 1, #page[2], 2 do
  local life = life_of(page[2][i + 1])
  if not life or is_over(life, moment) then
    workers[#workers + 1] = page[2][i]
  end
end
return { page[1], workers }
