-- Keeps what running handlers say of themselves.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 lines of a job's log that are kept  3… per note: id, fence, worker, progress ('': nothing new), text and
--       what is saved ('-': nothing new, else '+' and it), how many lines, then per line its age in ms and its text
-- Returns per note whether its word holds: the job runs under it (1 or 0).
local moment, most = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local wrong = unsound()
if wrong then
  return wrong
end

-- Whether a job runs under a word, and whether that word is heard: also when it settled the job last.
local function hears(job, fence, worker)
  if not job or job.state == 'deleted' or job.fence ~= fence then
    return false, false
  elseif job.state == 'running' then
    return job.worker == worker, job.worker == worker
  end
  local word = fence .. ' ' .. worker .. ' '
  return false, string.sub(job.settled or '', 1, #word) == word
end

if not most or most < 1 or most > 10000 then
  return redis.error_reply('HFARGS keeps ' .. tostring(ARGV[2]) .. ' lines')
end
local jobs, fences = {}, {}

local function read(id)
  if jobs[id] == nil then
    jobs[id] = read_job(id) or false
    fences[id] = call('HGET', NOTE .. id, 'fence')
    call('LLEN', LOG .. id)
  end
  return jobs[id]
end

-- The note that begins at ARGV[i], and where the next does.
local function note_at(i)
  local note = { id = ARGV[i], fence = ARGV[i + 1], progress = ARGV[i + 3], lines = {} }
  if ARGV[i + 4] ~= '-' then
    note.text = string.sub(ARGV[i + 4], 2)
  end
  if ARGV[i + 5] ~= '-' then
    note.saved = string.sub(ARGV[i + 5], 2)
  end
  note.runs, note.heard = hears(read(note.id), note.fence, ARGV[i + 2])
  for n = 1, tonumber(ARGV[i + 6]) do
    local line = i + 5 + 2 * n
    note.lines[n] = string.format('%.0f %s %s', moment - ARGV[line], note.fence, ARGV[line + 1])
  end
  return note, i + 7 + 2 * #note.lines
end

local notes, i = {}, 3
while i <= #ARGV do
  notes[#notes + 1], i = note_at(i)
end

local function show(note)
  local key = NOTE .. note.id
  if fences[note.id] ~= note.fence then
    fences[note.id] = note.fence
    call('HDEL', key, 'progress', 'text')
    call('HSET', key, 'fence', note.fence)
  end
  if note.progress ~= '' then
    call('HSET', key, 'progress', note.progress)
  end
  if note.text then
    call('HSET', key, 'text', note.text)
  end
end

local function keep(note)
  local job = jobs[note.id]
  if not job.noted then
    write_job(job, 'noted', '1')
  end
  if note.progress ~= '' or note.text then
    show(note)
  end
  if note.runs and note.saved then
    call('HSET', NOTE .. note.id, 'saved', note.saved)
  end
  if #note.lines > 0 then
    call('RPUSH', LOG .. note.id, unpack(note.lines))
    call('LTRIM', LOG .. note.id, -most, -1)
  end
end

local answers = {}
for n = 1, #notes do
  if notes[n].heard then
    keep(notes[n])
  end
  answers[n] = notes[n].runs and 1 or 0
end
return answers
