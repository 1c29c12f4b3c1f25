-- Queues scheduled jobs that are due, the earliest first.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many at most; 0: a look
-- Returns {how many were, the time, how many more are due, when the next is due: false where none is scheduled; of how
-- many the time is over, when that of the next will be: false where no job has such a time}.
local moment, most = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local wrong = unsound()
if wrong then
  return wrong
end
local picked = most > 0 and call('ZRANGEBYSCORE', DUE, '-inf', moment, 'WITHSCORES', 'LIMIT', 0, most) or {}
local gone, ranked = {}, {}
for i = 1, #picked, 2 do
  local id = picked[i]
  local said = call('HMGET', JOB .. id, 'state', 'priority')
  gone[#gone + 1] = id
  if said[1] == 'scheduled' then -- else its own row is gone, by another's hand
    ranked[#ranked + 1] = rank(said[2], picked[i + 1])
    ranked[#ranked + 1] = id
  end
end

if #gone > 0 then
  call('ZREM', DUE, unpack(gone))
end
if #ranked > 0 then
  for i = 2, #ranked, 2 do
    call('HSET', JOB .. ranked[i], 'state', 'queued')
  end
  call('ZADD', READY, unpack(ranked))
  ring()
end
local first = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
local next_at = first[2] and tonumber(first[2]) or false
local ends = call('ZRANGE', ENDS, 0, 0, 'WITHSCORES')
return {
  #ranked / 2, moment, call('ZCOUNT', DUE, '-inf', moment), next_at,
  ends[2] and call('ZCOUNT', ENDS, '-inf', moment) or 0, ends[2] and tonumber(ends[2]) or false,
}
