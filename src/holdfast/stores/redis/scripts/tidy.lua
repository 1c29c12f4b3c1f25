-- Takes the rows of workers out of a queue's slot that are over and hold nothing, some at a time; and the queue itself
-- where nothing is left of it. A worker who holds more than `holders` says, because somebody has deleted it, is counted
-- anew: else nobody would rescue these jobs.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 cursor in `workers`, 3 in `losses`: 0 at first, '' once that was all  4 how many rows, about
-- Returns {how many jobs can be pruned, the next cursors ('': that was all), whether the queue is no more (1 or 0)}.
local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end

local over, counts = {}, {}

-- Those on one page of rows whose life is over and who hold nothing; returns the next cursor.
local function look(key, cursor, life_in)
  if cursor == '' then
    return ''
  end
  local page = call('HSCAN', key, cursor, 'COUNT', ARGV[4])
  for i = 1, #page[2], 2 do
    local worker, life = page[2][i], life_in(page[2][i + 1])
    local held, count = call('HLEN', HELD .. worker), call('HGET', HOLDERS, worker)
    if held > tonumber(count or 0) then
      counts[#counts + 1] = worker
      counts[#counts + 1] = held
    elseif not count and (not life or is_over(life, moment)) then
      call('EXISTS', MAIL .. worker)
      over[#over + 1] = worker
    end
  end
  return page[1] == '0' and '' or page[1]
end

local function left(loss)
  local at = tonumber(string.match(loss, '^%d+'))
  return at and { retired = at }
end

local function is_empty()
  local said = call('HMGET', META, 'layout', 'declared', 'edited', 'paused')
  local is_meant = said[2] or said[3] or is_paused(said[4], moment)
  return said[1] and not is_meant and call('EXISTS', HOLDERS, unpack(KEYS, 2, 9)) == 0
end

local working, losses = look(WORKERS, ARGV[2], life_of), look(LOSSES, ARGV[3], left)

if #counts > 0 then
  begin_writes(HOLDERS)
  call('HSET', HOLDERS, unpack(counts))
end
for i = 1, #over do
  call('HDEL', WORKERS, over[i])
  call('HDEL', LOSSES, over[i])
  call('HDEL', TICKETS, over[i])
  call('DEL', MAIL .. over[i], HELD .. over[i])
end
local gone = is_empty()
if gone then
  call('DEL', META, UNIQUE, TICKETS, ENDS, WATCHED)
end
return { call('ZCOUNT', FINAL, '-inf', moment), working, losses, gone and 1 or 0 }
