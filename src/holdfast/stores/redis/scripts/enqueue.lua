-- Stores drafts without unique keys in a queue without a bound; admit.lua stores all others, and takes the same ARGV. What both
-- do they do in the same way, here without a table per draft: keep the two equal.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many kinds there are; then per kind ten: task, kind, priority, delay, at ("": the delay counts),
--       keep, born ("1" or ""), and three of unique keys; then per draft four: id, payload, number of its kind, ""
-- Returns -1 if the queue has a bound: nothing is done. Else how many jobs it had before, how many drafts are decided
-- (all), 0, and {nth, answer, created} of each that was not stored.

local MOST = 1000 -- drafts
local moment = now(tonumber(ARGV[1]))
stays_here()
local queue = call('HMGET', META, 'layout', 'max_size')
local before = call('ZCARD', JOBS)
call('ZCARD', READY)
call('ZCARD', DUE)
if queue[1] and queue[1] ~= LAYOUT then
  return redis.error_reply('HFLAYOUT ' .. queue[1])
elseif queue[2] then
  return -1
end

local kinds = {}
local count = tonumber(ARGV[2])
for n = 1, count do
  local i = 3 + 10 * (n - 1)
  local due = ARGV[i + 4] ~= '' and 0 + ARGV[i + 4] or moment + ARGV[i + 3]
  local is_due, priority = due <= moment, 0 + ARGV[i + 2]
  kinds[n] = {
    task = ARGV[i], text = ARGV[i + 1], priority = ARGV[i + 2], due = string.format('%.0f', due), keep = ARGV[i + 5],
    born = ARGV[i + 6] ~= '', state = is_due and 'queued' or 'scheduled', is_due = is_due,
    score = is_due and string.format('%.0f', rank(priority, due)) or nil,
  }
  if not tonumber(ARGV[i + 5]) then
    return redis.error_reply('HFARGS keep ' .. ARGV[i + 5])
  end
end
local running = not queue[1] and held_by_all()
local first = 3 + 10 * count
local drafts = (#ARGV - first + 1) / 4
if drafts ~= math.floor(drafts) or drafts < 1 or drafts > MOST then
  return redis.error_reply('HFARGS ' .. #ARGV .. ' arguments, of which ' .. count .. ' kinds')
end

local at = string.format('%.0f', moment)
local places = {} -- in ARGV, by id: of those to be stored
local all, ready, due, answers = {}, {}, {}, {}

local function is_same(id, task, payload, old_task)
  local first_payload = call('HGET', JOB .. id, 'first')
  if first_payload then
    return old_task == task and first_payload == redis.sha1hex(payload)
  end
  return old_task == task and call('HGET', JOB .. id, 'payload') == payload
end

for i = first, #ARGV, 4 do
  local id, kind = ARGV[i], kinds[tonumber(ARGV[i + 2])]
  local task, earlier = call('HGET', JOB .. id, 'task'), places[id]
  local same
  if earlier then
    same = kinds[tonumber(ARGV[earlier + 2])].task == kind.task and ARGV[earlier + 1] == ARGV[i + 1]
  elseif task then
    same = is_same(id, kind.task, ARGV[i + 1], task)
  else
    places[id] = i
    local n = #all
    all[n + 1], all[n + 2] = at, id
    local into = kind.is_due and ready or due
    n = #into
    into[n + 1], into[n + 2] = kind.score or kind.due, id
  end
  if same ~= nil then
    answers[#answers + 1] = { (i - first) / 4 + 1, same and 'accepted' or 'conflict', 0 }
  end
end

if #all > 0 then
  if running then
    make_meta(running)
  end
  for n = 2, #all, 2 do
    local id = all[n]
    local i = places[id]
    local kind = kinds[tonumber(ARGV[i + 2])]
    local key = JOB .. id
    call('HSET', key, 'state', kind.state, 'task', kind.task, 'kind', kind.text, 'payload', ARGV[i + 1],
      'at', at, 'due', kind.due, 'keep', kind.keep)
    if kind.born then
      call('HSET', key, 'born', '1', 'alone', '1', 'odd', '1')
    end
    if kind.priority ~= '0' then
      call('HSET', key, 'priority', kind.priority, 'odd', '1')
    end
  end
  call('ZADD', JOBS, unpack(all))
  if #due > 0 then
    call('ZADD', DUE, unpack(due))
  end
  if #ready > 0 then
    call('ZADD', READY, unpack(ready))
    ring()
  end
end
return { before, drafts, 0, unpack(answers) }
