-- Deletes jobs that do not run. What recognises a repeated enqueue or finish stays a while.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2 bytes of payloads that may be digested in this call  3… ids
-- Returns deleted, running or missing for as many of the ids, from the first on, as it came to: at least for one.

local moment, left = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local jobs, asked = {}, 0
for i = 3, #ARGV do
  local id = ARGV[i]
  if not jobs[id] then
    local job = read_job(id)
    if job and not job.first and job.state ~= 'running' then
      left = left - call('HSTRLEN', JOB .. id, 'payload')
    end
    if left < 0 and asked > 0 then
      break
    end
    call('EXISTS', HISTORY .. id, NOTE .. id, LOG .. id)
    jobs[id] = job
  end
  asked = asked + 1
end
local wrong = unsound()
if wrong then
  return wrong
end

-- Beside its id, what was settled last and a digest of what it was enqueued with.
local function bury(job)
  local digest = job.first or redis.sha1hex(call('HGET', JOB .. job.id, 'payload') or '')
  call('DEL', JOB .. job.id)
  write_job(job, 'state', 'deleted', 'task', job.task, 'first', digest, 'settled', job.settled, 'robbed', job.robbed,
    'finished', job.finished or moment, 'prunable', (job.finished or moment) + TOMBSTONE)
  put_in(job)
end

local function delete(job)
  if not job or job.state == 'deleted' then
    return 'missing'
  elseif job.state == 'running' then
    return 'running'
  end
  call('DEL', HISTORY .. job.id, NOTE .. job.id, LOG .. job.id)
  take_out(job)
  call('ZREM', JOBS, job.id)
  if has_key(job) then
    call('HDEL', UNIQUE, job.key)
  end
  bury(job)
  tell_end(job.id, moment)
  return 'deleted'
end

local answers = {}
for i = 1, asked do
  answers[i] = delete(jobs[ARGV[i + 2]])
end
return answers
