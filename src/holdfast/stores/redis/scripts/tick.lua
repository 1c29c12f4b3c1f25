-- A step of a schedule that is due: stores its job as admit.lua would, and says when its next tick is.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 name  3 token  4 revision  5 due  6 the tick that the job is for  7 next, ''  8 how many ticks are passed
--       over, from `due` on  9 why  10 how many ticks are kept  11 '1': a draft follows: the twelve of kinds_of, id,
--       payload, unique key
-- Returns {}: it is another one, or was changed, or is paused; {'again'}: the search for a place stops for now; or what is
-- answered, as it is kept: {"<due> <at> <outcome> <count> <job or -> <why>", how many jobs the queue had before}.

local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end
local name, next_at, missed, most = ARGV[2], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[10])
local is_whole = #ARGV == (ARGV[11] == '1' and 26 or 11) and tonumber(ARGV[5]) and tonumber(ARGV[6])
if not (is_whole and missed and most and most >= 1 and most <= 1000) then
  return redis.error_reply('HFARGS ' .. #ARGV .. ' arguments')
end
local entry = read_entry(name)
if not entry or entry.token ~= ARGV[3] or entry.to or entry.gone or entry.revision ~= ARGV[4] or
  entry.next ~= ARGV[5] or is_paused(entry.pause, moment) then
  return {}
end

local counts = { made = tonumber(entry.made) or 0, skipped = tonumber(entry.skipped) or 0 }
local texts, write_all = {}, nil

local function note(due, outcome, count, job, why)
  texts[#texts + 1] = table.concat({ due, string.format('%.0f', moment), outcome, count, job, why }, ' ')
end

local before = call('ZCARD', JOBS)
if missed > 0 or ARGV[11] ~= '1' then
  note(ARGV[5], 'missed', ARGV[8], '-', ARGV[9])
end
if ARGV[11] == '1' then
  local receive
  receive, write_all = admission(moment)
  local answer = receive(ARGV[24], ARGV[25], kinds_of(12, 1, moment)[1], ARGV[26])
  if answer == false then
    write_all(true)
    return { 'again' }
  end
  local outcome = (not answer or answer[1] == 'accepted') and 'made' or 'skipped'
  counts[outcome] = counts[outcome] + 1
  local holder = answer and answer[3] and answer[3] ~= '' and answer[3] or '-'
  note(ARGV[6], outcome, 1, outcome == 'made' and ARGV[24] or holder, outcome == 'made' and '' or answer[1])
end
entry.next = next_at ~= '' and string.format('%.0f', next_at)

call('HSET', ENTRY .. name, 'revision', string.format('%.0f', entry.revision + 1), 'next', entry.next or '',
  'made', counts.made, 'skipped', counts.skipped, 'missed', string.format('%.0f', (tonumber(entry.missed) or 0) + missed))
note_entry(name, entry)
if missed > 0 or ARGV[11] == '1' then
  call('RPUSH', TICKED .. name, unpack(texts))
  call('LTRIM', TICKED .. name, -most, -1)
end
if write_all then
  write_all(false)
end
return { texts[#texts], before }
