-- Pauses a queue, or says anew until when and why.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 until: "" (until it is resumed), d and a delay in ms, a and an instant  3 reason
-- Returns 0.

local moment, how, number = now(tonumber(ARGV[1])), string.match(ARGV[2] or '', '^([ad]?)(.*)$')
local wrong = unsound()
if wrong then
  return wrong
end
local till = '-'
if how ~= '' then
  till = string.format('%.0f', number + (how == 'd' and moment or 0))
elseif number ~= '' or not ARGV[3] then
  return redis.error_reply('HFARGS until ' .. number)
end
local said = call('HMGET', META, 'layout', 'paused')
local since = is_paused(said[2], moment) and string.match(said[2], '^%S+') or string.format('%.0f', moment)
local running = not said[1] and held_by_all()

call('HSET', META, 'paused', since .. ' ' .. till .. ' ' .. ARGV[3])
if running then
  make_meta(running)
end
return 0
