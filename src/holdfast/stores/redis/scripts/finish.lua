-- Writes outcomes of one queue, each under its claim's word; no job comes twice in a call. What jobs.lua does job by job
-- (take_out, end_job, put_in, tell_end) it does for all at once: keep the two equal.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 number of groups of plain successes, each: worker, kept ('' for ever), attempt, releases, losses,
--       crashes, alone ('1' or ''), how many; then per outcome: id, fence, result
--       then per other outcome: id, fence, worker, number of branches (2: the second where a cancel was asked for),
--       then per branch: ended, state, attempt, releases, losses, crashes, alone, kept, delay ('' for none), result (''
--       for none, else '+' and it), reason, '<bytes of the error's type, or -> <bytes of its message>', its type,
--       message and traceback in one, fingerprint
-- Returns how many jobs became queued; then, for each outcome that was not accepted as its first branch says, its
-- number from 0 on, its answer, and the state that was recorded ('' for none).

local moment = now(tonumber(ARGV[1]))
local finished = string.format('%.0f', moment)
local ERRORS_FIRST, ERRORS_LAST = 2, 18
local BRANCH = 14 -- arguments
stays_here()
local queue = call('HMGET', META, 'layout', 'watched')
if queue[1] and queue[1] ~= LAYOUT then
  return redis.error_reply('HFLAYOUT ' .. queue[1])
end
call('HLEN', HOLDERS)
-- Where somebody waits for the end of jobs: those that are final now.
local final = queue[2] and moment < (tonumber(queue[2]) or 0) and {}
if final then
  call('ZCARD', BASE .. 'watched')
end

local answers = { 0 }
local given = {} -- by worker, the ids of the claims that end here
local jobs = {} -- their jobs: id, then fields and values
local keys, forgotten, mail, runs = {}, {}, {}, {} -- what goes, and by id what is added to a history
local indexes = {} -- by key: scores and ids that are added

local PLAIN_JOB = {}

local function refused(number, id, word, state)
  local settled = state and call('HGET', JOB .. id, 'settled')
  local said, recorded = state and 'stale' or 'gone', ''
  if settled and string.sub(settled, 1, #word + 1) == word .. ' ' then
    said, recorded = 'replayed', string.sub(settled, #word + 2)
  elseif state == 'deleted' then
    said = 'gone'
  end
  local n = #answers
  answers[n + 1], answers[n + 2], answers[n + 3] = number, said, recorded
end

-- What is known of the job where the claim is held by just this word: {key, noted, reason, cancel, loss, alone}; nil
-- where it is not, and then it is answered.
local function judged(number, id, fence, worker)
  local word = call('HMGET', JOB .. id, 'state', 'fence', 'worker', 'odd')
  if word[1] ~= 'running' or word[2] ~= fence or word[3] ~= worker then
    return refused(number, id, fence .. ' ' .. worker, word[1])
  end
  local ids = given[worker]
  if not ids then
    call('HLEN', HELD .. worker)
    ids = {}
    given[worker] = ids
  end
  ids[#ids + 1] = id
  if not word[4] then
    return PLAIN_JOB
  end
  local known = call('HMGET', JOB .. id, 'key', 'noted', 'reason', 'cancel', 'loss', 'alone')
  for i = 1, 6 do
    known[i] = known[i] ~= '' and known[i]
  end
  if known[4] then
    local lines = MAIL .. worker
    call('SCARD', lines)
    mail[#mail + 1] = { lines, 'cancel ' .. id .. ' ' .. fence }
  end
  return known
end

-- How long a job that is over keeps its unique key; with no hold the key goes.
local function hold_of(id, key)
  if call('HGET', UNIQUE, key) ~= id then
    return 0
  end
  local hold = tonumber(call('HGET', JOB .. id, 'hold') or 0)
  if hold == 0 then
    keys[#keys + 1] = key
  end
  return hold
end

local function index(key, score, id)
  local entries = indexes[key]
  if not entries then
    call('ZCARD', key)
    entries = {}
    indexes[key] = entries
  end
  entries[#entries + 1], entries[#entries + 2] = score, id
end

-- What was saved goes with a success: no attempt follows.
local function forget_saved(id, noted)
  if noted then
    call('HLEN', NOTE .. id)
    forgotten[#forgotten + 1] = id
  end
end

local function set(job, ...)
  local said = { ... }
  for i = 1, #said do
    job[#job + 1] = said[i]
  end
end

local function group(number, at)
  local worker, kept, attempt, releases, losses, crashes, alone = unpack(ARGV, at, at + 6)
  local first = attempt == '1' and releases == '0' and losses == '0' and crashes == '0'
  local over = kept ~= '' and string.format('%.0f', moment + kept)
  local settled = ' ' .. worker .. ' succeeded'
  at = at + 8
  for _ = 1, tonumber(ARGV[at - 1]) do
    local id, fence = ARGV[at], ARGV[at + 1]
    local known = judged(number, id, fence, worker)
    if known then
      local result = ARGV[at + 2]
      local job = { id, 'state', 'succeeded', 'finished', finished, 'settled', fence .. settled, 'result', result }
      local hold = known[1] and hold_of(id, known[1]) or 0
      if over then
        index(FINAL, hold > tonumber(kept) and string.format('%.0f', moment + hold) or over, id)
      end
      if known ~= PLAIN_JOB then
        forget_saved(id, known[2])
        set(job, 'reason', '', 'cancel', '', 'loss', '')
      end
      if not first or fence ~= '1' or (known[6] or '') ~= alone then -- else they are what they were
        set(job, 'attempt', attempt, 'releases', releases, 'losses', losses, 'crashes', crashes, 'alone', alone)
      end
      jobs[#jobs + 1] = job
      if final then
        final[#final + 1] = id
      end
    end
    number, at = number + 1, at + 3
  end
  return number, at
end

-- An attempt of the history: see records.py.
local function run_of(attempt, fence, worker, started, ended, reason, sizes, error)
  return table.concat({ attempt, fence, worker, started, finished, ended, #reason, sizes, reason .. error }, ' ')
end

local function other(number, at)
  local id, fence, worker, branches = unpack(ARGV, at, at + 3)
  local known = judged(number, id, fence, worker)
  local branch = at + 4
  local following = branch + BRANCH * tonumber(branches)
  if not known then
    return following
  end
  local cancelled = known[4] and ARGV[branch] ~= 'succeeded'
  local asked = ARGV[branch + 1]
  if cancelled and branches == '2' then
    branch = branch + BRANCH
  end
  local ended, state, attempt, releases, losses, crashes, alone, kept, delay, result, reason, sizes, error, fingerprint =
    unpack(ARGV, branch, branch + BRANCH - 1)
  if cancelled and known[3] then
    reason = known[3]
  end
  if state ~= asked then
    local n = #answers
    answers[n + 1], answers[n + 2], answers[n + 3] = number, 'accepted', state
  end
  local more = call('HMGET', JOB .. id, 'at', 'due', 'priority', 'started', 'attempt', 'omitted')
  local settled = fence .. ' ' .. worker .. ' ' .. state
  local job = { id, 'state', state, 'settled', settled, 'attempt', attempt, 'releases', releases, 'losses', losses,
    'crashes', crashes, 'alone', alone }
  if reason ~= '' or known ~= PLAIN_JOB then
    set(job, 'reason', reason, 'cancel', '', 'loss', '', 'odd', '1')
  end
  if result ~= '' then
    set(job, 'result', string.sub(result, 2))
  end
  if ended == 'succeeded' then
    forget_saved(id, known[2])
  elseif more[4] then
    local length = call('LLEN', HISTORY .. id)
    runs[#runs + 1] = { id, run_of(more[5] or '0', fence, worker, more[4], ended, reason, sizes, error) }
    if length >= ERRORS_FIRST + ERRORS_LAST then
      set(job, 'omitted', (more[6] or 0) + 1)
    end
  end
  if state == 'queued' or state == 'scheduled' then
    local due = more[2]
    if delay ~= '' then
      due = string.format('%.0f', moment + delay)
      set(job, 'due', due)
    end
    if state == 'queued' then
      answers[1] = answers[1] + 1
      index(READY, rank(more[3], due), id)
    else
      index(DUE, due, id)
    end
    local deadline = known ~= PLAIN_JOB and call('HGET', JOB .. id, 'deadline')
    if deadline then
      index(BASE .. 'ends', deadline, id)
    end
  else
    local hold = known[1] and hold_of(id, known[1]) or 0
    set(job, 'finished', finished)
    if kept ~= '' then
      index(FINAL, string.format('%.0f', moment + math.max(tonumber(kept), hold)), id)
    end
    if final then
      final[#final + 1] = id
    end
    if state == 'dead' then
      index(DEAD, more[1], id)
      if fingerprint ~= '' then
        set(job, 'fingerprint', fingerprint)
      end
    elseif state == 'cancelled' then
      index(CANCELLED, more[1], id)
    end
  end
  jobs[#jobs + 1] = job
  return following
end

local mistaken = redis.error_reply('HFARGS ' .. #ARGV .. ' arguments')
local number, at = 0, 3
for _ = 1, tonumber(ARGV[2]) do
  local count = tonumber(ARGV[at + 7])
  if not count or at + 7 + 3 * count > #ARGV then
    return mistaken
  end
  number, at = group(number, at)
end
while at <= #ARGV do
  local branches = tonumber(ARGV[at + 3])
  if not branches or at + 3 + BRANCH * branches > #ARGV then
    return mistaken
  end
  at = other(number, at)
  number = number + 1
end

for worker, ids in pairs(given) do
  call('HDEL', HELD .. worker, unpack(ids)) -- first: a full server allows it, and then all that follows
  count_held(worker, -#ids)
end
for i = 1, #mail do
  call('SREM', mail[i][1], mail[i][2])
end
if #keys > 0 then
  call('HDEL', UNIQUE, unpack(keys))
end
for i = 1, #forgotten do
  call('HDEL', NOTE .. forgotten[i], 'saved')
end
for i = 1, #jobs do
  local job = jobs[i]
  call('HSET', JOB .. job[1], unpack(job, 2))
end
for key, entries in pairs(indexes) do
  call('ZADD', key, unpack(entries))
end
for i = 1, #runs do
  local history = HISTORY .. runs[i][1]
  if call('RPUSH', history, runs[i][2]) > ERRORS_FIRST + ERRORS_LAST then
    call('LREM', history, 1, call('LINDEX', history, ERRORS_FIRST))
  end
end
if answers[1] > 0 then
  ring()
end
if final then
  local heard = {}
  for i = 1, #final do
    if redis.pcall('ZREM', BASE .. 'watched', final[i]) == 1 then
      heard[#heard + 1] = final[i]
    end
  end
  if #heard > 0 then
    redis.pcall('PUBLISH', string.match(BASE, '^{[^:]*') .. '}:ended', table.concat(heard, ' '))
  end
end
return answers
