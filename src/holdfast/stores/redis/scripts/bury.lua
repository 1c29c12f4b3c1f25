-- Ends a running job as dead that cannot be read.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 id  3 the worker that holds it  4 why
-- Returns 1 if it is dead now, else 0.

local moment, id, worker, why = now(tonumber(ARGV[1])), ARGV[2], ARGV[3], ARGV[4]
local wrong = not why and redis.error_reply('HFARGS id, worker, why') or unsound()
if wrong then
  return wrong
end
local job = read_job(id)
if not job or job.state ~= 'running' or job.worker ~= worker then
  return 0
end
call('HLEN', HELD .. job.worker)
call('SCARD', MAIL .. job.worker)
job.at = tonumber(job.at) or moment
take_out(job)
end_job(job, 'dead', why, false, moment)
return 1
