-- Part: a queue's jobs between its indexes.
-- Numbers of milliseconds are passed to commands as numbers, never joined to a text by `..`, which keeps 14 digits.

local JOB, HELD, MAIL = BASE .. 'job:', BASE .. 'held:', BASE .. 'mail:'
local HISTORY, NOTE, LOG = BASE .. 'history:', BASE .. 'note:', BASE .. 'log:'
local ENDS = BASE .. 'ends' -- of jobs scheduled or queued: when their time is over
local WATCHED = BASE .. 'watched' -- jobs whose end somebody waits for, see watch.lua
local TOMBSTONE = 60000
local SPAN = 17592186044416 -- 2^44: of due times, within one priority of `ready`
local call = redis.call

-- All fields of a job but the bulky ones: payload, kind, result, loss. An absent or empty value is false.
local STANDING = {
  'state', 'task', 'priority', 'at', 'due', 'keep', 'born', 'key', 'until', 'hold', 'clash', 'life', 'attempt',
  'releases', 'losses', 'crashes', 'alone', 'fence', 'started', 'finished', 'worker', 'cancel',
  'reason', 'settled', 'first', 'over', 'omitted', 'noted', 'robbed',
  'expires', 'deadline',
}

-- The job's standing by field, with its `id`; nil where there is none. A tombstone's state is `deleted`.
local function read_job(id)
  local values = call('HMGET', JOB .. id, unpack(STANDING))
  if not values[1] then
    return nil
  end
  local job = { id = id }
  for i = 1, #STANDING do
    job[STANDING[i]] = values[i] ~= '' and values[i]
  end
  if job.state ~= 'running' then
    job.worker = false -- it may be of the last run
  end
  return job
end

-- These are where the indexes have them: scores of `final`, and values of `held`.
local NOT_STORED = { prunable = true, ticket = true }

-- A job with one of these, or with a priority, has `odd` too: without it, claim and finish do not look at them.
local ODD = { alone = true, key = true, cancel = true, reason = true, loss = true, noted = true, expires = true, deadline = true }

-- Sets fields of a job, here and in the store: name, value, name, value …; false takes a field away.
local function write_job(job, ...)
  local said, set, gone, odd = { ... }, {}, {}, false
  for i = 1, #said, 2 do
    local field, value = said[i], said[i + 1]
    job[field] = value
    if value == false then
      gone[#gone + 1] = field
    elseif not NOT_STORED[field] then
      odd = odd or ODD[field]
      set[#set + 1] = field
      set[#set + 1] = value
    end
  end
  if odd then
    set[#set + 1] = 'odd'
    set[#set + 1] = '1'
  end
  if #gone > 0 then
    call('HDEL', JOB .. job.id, unpack(gone))
  end
  if #set > 0 then
    call('HSET', JOB .. job.id, unpack(set))
  end
end

-- The score of a job in `ready`: priority descending, then due.
local function rank(priority, due)
  due = tonumber(due)
  due = due < 0 and 0 or due >= SPAN and SPAN - 1 or due
  return (100 - (tonumber(priority) or 0)) * SPAN + due
end

local function count_held(worker, change)
  if call('HINCRBY', HOLDERS, worker, change) <= 0 then
    call('HDEL', HOLDERS, worker)
  end
  call('HINCRBY', META, 'running', change)
end

-- When the time of a job is over, unless it is started or finished before; nil: never.
local function ends_at(job)
  local expires, deadline = not job.started and tonumber(job.expires), tonumber(job.deadline)
  return expires and deadline and math.min(expires, deadline) or expires or deadline
end

-- Of a job that is scheduled or queued now.
local function note_end(job)
  local at = ends_at(job)
  if at then
    call('ZADD', ENDS, at, job.id)
  end
end

local function forget_end(job)
  if job.expires or job.deadline then
    call('ZREM', ENDS, job.id)
  end
end

-- Puts a job into the indexes of its state. It reads state, at, due, priority, worker, ticket, prunable.
local function put_in(job)
  local state = job.state
  if state == 'queued' then
    call('ZADD', READY, rank(job.priority, job.due), job.id)
    note_end(job)
    ring()
  elseif state == 'scheduled' then
    call('ZADD', DUE, job.due, job.id)
    note_end(job)
  elseif state == 'running' then
    call('HSET', HELD .. job.worker, job.id, job.ticket or '')
    count_held(job.worker, 1)
  else
    if state == 'dead' then
      call('ZADD', DEAD, job.at, job.id)
    elseif state == 'cancelled' then
      call('ZADD', CANCELLED, job.at, job.id)
    end
    if job.prunable then
      call('ZADD', FINAL, job.prunable, job.id)
    end
  end
end

-- Takes a job out of the indexes of its state; that of a running one ends its claim, and what was to be said about it.
local function take_out(job)
  local state = job.state
  if state == 'queued' then
    call('ZREM', READY, job.id)
    forget_end(job)
  elseif state == 'scheduled' then
    call('ZREM', DUE, job.id)
    forget_end(job)
  elseif state == 'running' then
    call('HDEL', HELD .. job.worker, job.id)
    count_held(job.worker, -1)
    if job.cancel then
      call('SREM', MAIL .. job.worker, 'cancel ' .. job.id .. ' ' .. job.fence)
    end
  else
    if state == 'dead' then
      call('ZREM', DEAD, job.id)
    elseif state == 'cancelled' then
      call('ZREM', CANCELLED, job.id)
    end
    call('ZREM', FINAL, job.id)
  end
end

-- Whether a job has its unique key, or had it last.
local function has_key(job)
  return job.key and call('HGET', UNIQUE, job.key) == job.id
end

-- How long a final job is kept that was enqueued with this `keep`.
local function kept_for(keep)
  return math.max(tonumber(keep) or 0, TOMBSTONE)
end

-- Tells those who wait for the end of a job, where anybody waits, as `meta` says. A hint, as ring() is.
local function tell_end(id, moment)
  local watched = tonumber(call('HGET', META, 'watched'))
  if watched and moment < watched and redis.pcall('ZREM', WATCHED, id) == 1 then
    redis.pcall('PUBLISH', string.match(BASE, '^{[^:]*') .. '}:ended', id)
  end
end

-- Ends a job that take_out has taken out: its place and, unless it has a hold, its key are free. `kept`: kept_for(…),
-- or false for ever.
local function end_job(job, state, reason, kept, moment)
  local hold = 0
  if has_key(job) then
    hold = tonumber(job.hold) or 0
    if hold == 0 then
      call('HDEL', UNIQUE, job.key)
    end
  end
  write_job(job, 'state', state, 'finished', moment, 'prunable', kept and moment + math.max(kept, hold),
    'reason', reason ~= '' and reason, 'worker', false, 'ticket', false, 'loss', false, 'cancel', false)
  put_in(job)
  tell_end(job.id, moment)
end

-- How many jobs run, by those who hold them.
local function held_by_all()
  local counts, all = call('HGETALL', HOLDERS), 0
  for i = 2, #counts, 2 do
    all = all + counts[i]
  end
  return all
end

-- Whether there is such a queue, also where its `meta` got lost.
local function is_there()
  return call('HEXISTS', META, 'layout') == 1 or call('EXISTS', JOBS, HOLDERS) > 0
end

-- A write: `meta` of a queue that has none, or none any more. `running`: held_by_all(), read before the first write.
local function make_meta(running)
  call('HSET', META, 'layout', LAYOUT, 'running', running)
end

-- Raises while the slot of these keys is on its way to another server: a key that is not there may be there, and one that
-- a script empties in its middle could not be touched again. There is never a key of this name.
local function stays_here()
  call('EXISTS', BASE .. 'never')
end

-- An error reply where the queue's keys are not of this layout.
local function other_layout()
  stays_here()
  local layout = call('HGET', META, 'layout')
  if layout and layout ~= LAYOUT then
    return redis.error_reply('HFLAYOUT ' .. layout)
  end
end

-- Before the first write: other_layout, and raises where a key is of another type.
local function unsound()
  local wrong = other_layout()
  for i = 2, 7 do
    call('ZCARD', KEYS[i])
  end
  for i = 8, 12 do
    call('HLEN', KEYS[i])
  end
  call('ZCARD', ENDS)
  call('ZCARD', WATCHED)
  return wrong
end
