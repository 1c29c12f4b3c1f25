-- Takes queued jobs of one queue for a worker that has joined it.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 worker  3 stamp: its ticket * 1000 + which part of the claim this is (_PARTS and _WIDTH in
--       claim.py)  4 limit  5 bytes of payloads
--       after which no further job is taken  6 '1': takes nothing, but uses the stamp up: no late copy of a call that
--       was given up may take anything under it
-- Returns 'stranger', 'expired' or 'stamp' (a later one was used here), and then nothing has changed. Else: now, what
-- the rows are, and the rows of held.lua. 'taken', or 'cut' where bytes were reached: as the jobs were before this
-- claim. 'paused': none. 'again': this stamp was used just here before, and its reply was lost; what is still held under
-- it, as it is.

local moment = now(tonumber(ARGV[1]))
local worker, stamp, limit, bytes = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local held_key = HELD .. worker
stays_here()
local queue = call('HMGET', META, 'layout', 'paused')
if queue[1] and queue[1] ~= LAYOUT then
  return redis.error_reply('HFLAYOUT ' .. queue[1])
end
local life = call('HGET', WORKERS, worker)
if not life then
  return 'stranger'
end
if moment >= tonumber(string.match(life, '^%S+')) then
  return 'expired'
end
local last = tonumber(call('HGET', TICKETS, worker) or 0)
if last > tonumber(stamp) then
  return 'stamp'
end
local rows = { moment, 'taken' }
if last == tonumber(stamp) then
  rows[2] = 'again'
  local held = call('HGETALL', held_key)
  for i = 1, #held, 2 do
    if held[i + 1] == stamp then
      rows[#rows + 1] = row_of(held[i])
    end
  end
  return rows
end

if ARGV[6] == '1' then
  begin_writes(TICKETS)
  call('HSET', TICKETS, worker, stamp)
  return rows
end

local till = queue[2] and string.match(queue[2], '^%S+ (%S+) ') -- as is_paused
if till and (till == '-' or moment < tonumber(till)) then
  rows[2] = 'paused'
  return rows
end
local ids = limit > 0 and call('ZRANGE', READY, 0, limit - 1) or {}
if #ids == 0 then
  return rows
end
call('HLEN', held_key)
call('HLEN', HOLDERS)
local FIRST_RUN = { '1', '1' } -- fence and attempt
local LOOKS = 500 -- at jobs whose time is over, in search of others behind them: promote is about to end them
local taken, again, keys, held = 0, {}, {}, {}
local mortal, late, lates = nil, nil, 0 -- ids: taken, of those that have such a time; left where they are, as it is over

repeat
  for i = 1, #ids do
    if bytes < 0 then
      rows[2] = 'cut'
      break
    end
    local id = ids[i]
    local row, more = row_of(id, true)
    taken = taken + 1
    local deadline, expires
    if more and not immortal then
      deadline, expires = tonumber(row[17]), not more[7] and tonumber(more.expires)
    end
    if deadline and deadline <= moment or expires and expires <= moment then
      late = late or {}
      late[id], lates = true, lates + 1
    elseif row then
      local n = #rows + 1
      rows[n] = row
      bytes = bytes - bytes_of(row, more)
      held[2 * n - 5], held[2 * n - 4] = id, stamp
      if more then
        again[n] = { row[7] + 1, row[10] + 1 }
        if more[11] == 'started' and call('HGET', UNIQUE, more[10]) == id then
          keys[#keys + 1] = more[10]
        end
        if row[17] ~= '' or more.expires then
          mortal = mortal or {}
          mortal[#mortal + 1] = id
        end
      end
    end
  end
  local left = lates > 0 and lates < LOOKS and rows[2] == 'taken' and limit - (#rows - 2) or 0
  ids = left > 0 and call('ZRANGE', READY, taken, taken + left - 1) or {}
until #ids == 0
if taken == lates then
  return rows
end

if lates == 0 then
  call('ZREMRANGEBYRANK', READY, 0, taken - 1) -- first: a full server allows it, and then all that follows
else
  local gone, looked = {}, call('ZRANGE', READY, 0, taken - 1)
  for i = 1, #looked do
    if not late[looked[i]] then
      gone[#gone + 1] = looked[i]
    end
  end
  call('ZREM', READY, unpack(gone))
end
if mortal then
  call('ZREM', BASE .. 'ends', unpack(mortal))
end
if #keys > 0 then
  call('HDEL', UNIQUE, unpack(keys))
end
if #rows == 2 then
  return rows -- no such jobs
end
call('HSET', TICKETS, worker, stamp)
local started = string.format('%.0f', moment)
for n = 3, #rows do
  local count = again[n] or FIRST_RUN
  call('HSET', JOB .. held[2 * n - 5], 'state', 'running', 'fence', count[1], 'attempt', count[2], 'started', started,
    'worker', worker)
end
call('HSET', held_key, unpack(held))
count_held(worker, #rows - 2)
return rows
