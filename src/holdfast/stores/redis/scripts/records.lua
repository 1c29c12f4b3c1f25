-- What there is to show of jobs, each in one moment.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2 bytes, after which no further job is read  3… ids
-- Returns for as many of the ids, from the first on, as it came to: false for none, or {now, fields and values of the
-- job, its history, {fence, progress, text} of its note, whether it has its unique key (1 or 0)}.

local moment, left = now(tonumber(ARGV[1])), tonumber(ARGV[2])
local shown = {}

local function weigh(texts)
  for i = 1, #texts do
    left = left - #texts[i]
  end
  return texts
end

for i = 3, #ARGV do
  local id = ARGV[i]
  local standing = read_job(id)
  if not standing or standing.state == 'deleted' then
    shown[#shown + 1] = false
  else
    local note = call('HMGET', NOTE .. id, 'fence', 'progress', 'text')
    local runs = weigh(call('LRANGE', HISTORY .. id, 0, -1))
    shown[#shown + 1] = { moment, weigh(call('HGETALL', JOB .. id)), runs, note, has_key(standing) and 1 or 0 }
  end
  if left < 0 then
    break
  end
end
return shown
