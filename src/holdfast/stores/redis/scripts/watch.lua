-- Jobs whose end somebody waits for: whoever ends one tells of it (tell_end in jobs.lua). `meta` says until when
-- anybody waits here at all, which is all that those look at who end others.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 for how many ms  3… ids
-- Returns how many of them have ended or are gone; if it is none, their ends are told of from now on.

local moment, long = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local wrong = unsound()
if wrong then
  return wrong
end
local FINAL_STATES = { succeeded = true, dead = true, cancelled = true, deleted = true }
local over, watched = 0, {}
for i = 3, #ARGV do
  local state = call('HGET', JOB .. ARGV[i], 'state')
  if not state or FINAL_STATES[state] then
    over = over + 1
  end
  watched[#watched + 1] = moment + long
  watched[#watched + 1] = ARGV[i]
end
local said = call('HMGET', META, 'layout', 'watched')
if over > 0 or #watched == 0 or not said[1] then
  return over
end
local stale = call('ZRANGEBYSCORE', WATCHED, '-inf', moment, 'LIMIT', 0, 500)

begin_writes(META)
call('ZADD', WATCHED, unpack(watched))
if #stale > 0 then
  call('ZREM', WATCHED, unpack(stale))
end
if moment + long > (tonumber(said[2]) or 0) then
  call('HSET', META, 'watched', moment + long)
end
return 0
