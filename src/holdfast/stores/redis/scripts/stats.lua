-- A queue as it is now.
-- KEYS  the queue's 13
-- ARGV  1 shift
-- Returns how many are queued, scheduled, running and dead, the earliest due time of those queued, then declared,
-- edited, max_size, when_full, block_timeout, dropped and paused; '' where there is none.

local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end

-- `ready` is ordered by priority first: the head of each priority is its earliest.
local earliest
local head = call('ZRANGEBYSCORE', READY, '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
while head[1] do
  local due = tonumber(call('HGET', JOB .. head[1], 'due'))
  if due and (not earliest or due < earliest) then
    earliest = due
  end
  local next_priority = (math.floor(tonumber(head[2]) / SPAN) + 1) * SPAN
  head = call('ZRANGEBYSCORE', READY, string.format('%.0f', next_priority), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
end

local said = call('HMGET', META, 'running', 'declared', 'edited', 'max_size', 'when_full', 'block_timeout', 'dropped',
  'paused')
return {
  call('ZCARD', READY), call('ZCARD', DUE), tonumber(said[1]) or 0, call('ZCARD', DEAD),
  earliest and string.format('%.0f', earliest) or '',
  said[2] or '', said[3] or '', said[4] or '', said[5] or '', said[6] or '', said[7] or '',
  is_paused(said[8], moment) and said[8] or '',
}
