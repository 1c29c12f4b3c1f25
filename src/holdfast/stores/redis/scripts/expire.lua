-- Ends jobs whose time is over before they were started, or finished.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many at most
-- Returns of each {when, id, task, why: expired or deadline}.

local moment, most = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local wrong = unsound()
if wrong then
  return wrong
end
local over, at, unreal = {}, {}, {}
for _, id in ipairs(call('ZRANGEBYSCORE', ENDS, '-inf', moment, 'LIMIT', 0, most)) do
  local job = read_job(id)
  local is_here = job and (job.state == 'scheduled' or job.state == 'queued')
  local ends = is_here and ends_at(job)
  if ends and ends <= moment then
    over[#over + 1] = job
    at[#over] = ends
  else -- an older program has claimed it since
    unreal[#unreal + 1] = { id, ends }
  end
end

begin_writes(HOLDERS)
for i = 1, #unreal do
  call('ZREM', ENDS, unreal[i][1])
  if unreal[i][2] then
    call('ZADD', ENDS, unreal[i][2], unreal[i][1])
  end
end
local answers = {}
for i = 1, #over do
  local job = over[i]
  local is_dead = job.deadline and tonumber(job.deadline) <= moment
  local why = is_dead and 'deadline' or 'expired'
  take_out(job)
  end_job(job, is_dead and 'dead' or 'cancelled', why, not is_dead and kept_for(job.keep), moment)
  answers[i] = { at[i], job.id, job.task or '', why }
end
return answers
