-- Cancels jobs: now, or by a word to the worker that runs one.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2 reason  3… ids
-- Returns per id: cancelled, requested, final or missing; of an id that stands twice the second answer follows the first.

local moment, reason = now(tonumber(ARGV[1])), ARGV[2]
local jobs = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  jobs[id] = jobs[id] or read_job(id)
  if jobs[id] and jobs[id].state == 'running' then
    call('SCARD', MAIL .. jobs[id].worker)
  end
end
local wrong = unsound()
if wrong then
  return wrong
end

local function request(job)
  if job.cancel then
    return
  end
  write_job(job, 'cancel', moment, 'reason', reason ~= '' and reason)
  call('SADD', MAIL .. job.worker, 'cancel ' .. job.id .. ' ' .. job.fence)
end

local function cancel(job)
  if not job or job.state == 'deleted' then
    return 'missing'
  elseif job.state == 'running' then
    request(job)
    return 'requested'
  elseif job.finished then
    return 'final'
  end
  take_out(job)
  end_job(job, 'cancelled', reason, kept_for(job.keep), moment)
  return 'cancelled'
end

begin_writes(HOLDERS)
local answers = {}
for i = 3, #ARGV do
  answers[i - 2] = cancel(jobs[ARGV[i]])
end
return answers
