-- New lives for dead and cancelled jobs.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2… ids
-- Returns per id: {answer}, the answer being retried, unfinished, succeeded or missing; {'taken', id of the holder};
-- {'full', depth, bound, when_full, block_timeout}, '' for none. In the order of the call, each after those before it.

local moment = now(tonumber(ARGV[1]))
local room = bound()
local decided = {} -- by id: the job that will be retried
local taker = {} -- by key: who takes it in this call
local lost = {} -- by key: whose time was over

local function refusal(id, job)
  if not job or job.state == 'deleted' then
    return { 'missing' }
  elseif job.state == 'succeeded' then
    return { 'succeeded' }
  elseif decided[id] or not job.finished then
    return { 'unfinished' }
  end
  if job.key then
    local holder, over = holder_of(job.key, moment)
    local other = taker[job.key] or holder and not over and holder.id
    if other and other ~= id then
      return { 'taken', other }
    end
    lost[job.key] = holder
  end
  return room and room[1] >= room[2] and { 'full', unpack(room) } or nil
end

local answers = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local job = decided[id] or read_job(id)
  answers[i - 1] = refusal(id, job)
  if not answers[i - 1] then
    answers[i - 1] = { 'retried' }
    decided[id] = job
    if job.key then
      taker[job.key] = id
    end
    if room then
      room[1] = room[1] + 1
    end
  end
end
local wrong = unsound()
if wrong then
  return wrong
end

for _, job in pairs(decided) do
  take_out(job)
  write_job(job, 'state', 'queued', 'due', moment, 'life', (job.life or 1) + 1, 'alone', job.born,
    'attempt', false, 'releases', false, 'losses', false, 'crashes', false, 'started', false, 'finished', false,
    'prunable', false, 'result', false, 'reason', false, 'over', false, 'expires', false, 'deadline', false,
    'fingerprint', false)
  if job.key then
    take_key(job, lost[job.key])
  end
  set_back(job)
  put_in(job)
end
return answers
