-- What is laid down about a queue.
-- KEYS  the queue's 13
-- ARGV  1 shift
-- Returns declared, edited and paused; '' where there is none.

local moment = now(tonumber(ARGV[1]))
local wrong = other_layout()
if wrong then
  return wrong
end
local said = call('HMGET', META, 'declared', 'edited', 'paused')
return { said[1] or '', said[2] or '', is_paused(said[3], moment) and said[3] or '' }
