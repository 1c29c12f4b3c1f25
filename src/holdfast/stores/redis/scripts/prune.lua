-- Deletes finished jobs whose time is over, with all that belongs to them; what is left of deleted ones too.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many at most
-- Returns how many.
local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end
local over = call('ZRANGEBYSCORE', FINAL, '-inf', moment, 'LIMIT', 0, ARGV[2])
if #over == 0 then
  return 0
end
local dead, cancelled, keys, lines, spoke = {}, {}, {}, {}, {}
for i = 1, #over do
  local id = over[i]
  local said = call('HMGET', JOB .. id, 'state', 'key', 'robbed')
  spoke[i] = call('EXISTS', HISTORY .. id, NOTE .. id, LOG .. id) > 0
  if said[1] == 'dead' then
    dead[#dead + 1] = id
  elseif said[1] == 'cancelled' then
    cancelled[#cancelled + 1] = id
  end
  if said[2] and call('HGET', UNIQUE, said[2]) == id then
    keys[#keys + 1] = said[2]
  end
  for worker, fence in string.gmatch(said[3] or '', '(%S+) (%S+) ') do
    call('SCARD', MAIL .. worker)
    lines[#lines + 1] = { MAIL .. worker, 'lost ' .. id .. ' ' .. fence }
  end
end

call('ZREM', FINAL, unpack(over))
call('ZREM', JOBS, unpack(over))
if #dead > 0 then
  call('ZREM', DEAD, unpack(dead))
end
if #cancelled > 0 then
  call('ZREM', CANCELLED, unpack(cancelled))
end
if #keys > 0 then
  call('HDEL', UNIQUE, unpack(keys))
end
for i = 1, #lines do
  call('SREM', lines[i][1], lines[i][2])
end
for i = 1, #over do
  local id = over[i]
  if spoke[i] then
    call('DEL', JOB .. id, HISTORY .. id, NOTE .. id, LOG .. id)
  else
    call('DEL', JOB .. id)
  end
end
return #over
