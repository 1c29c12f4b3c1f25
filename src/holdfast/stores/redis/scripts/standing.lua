-- How a worker stands, and what else whoever claims or sweeps wants to know first. A steady sweeper cuts the leases that
-- lie too far ahead.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 worker  3 "1": it sweeps
-- Returns {"gone", "expired" or "live"; its row, '' if gone; lease in ms; the time; {names of queues}}.
local QUEUES, ROWS = KEYS[2], KEYS[3]
local moment, worker = now(tonumber(ARGV[1])), ARGV[2]
local lease, wrong = lease_of_registry()
if wrong then
  return wrong
end
local names = redis.call('SMEMBERS', QUEUES)
local life = life_of(redis.call('HGET', ROWS, worker))
if not life or life.retired then
  return { 'gone', '', lease, moment, names }
end
local state = is_live(life, moment) and 'live' or 'expired'

if ARGV[3] == '1' and state == 'live' and is_steady(life, moment, lease) then
  local rows = redis.call('HGETALL', ROWS)
  begin_writes(ROWS)
  for i = 1, #rows, 2 do
    local other = life_of(rows[i + 1])
    if other and cut(other, moment, lease) then
      redis.call('HSET', ROWS, rows[i], as_row(other))
    end
  end
end
return { state, as_row(life), lease, moment, names }
