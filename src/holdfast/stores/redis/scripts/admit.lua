-- Stores drafts of one queue, in their order, some of which have unique keys or a time after which they are over, or for
-- which there may be no place: see admission.lua.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 how many kinds there are; then per kind the twelve of kinds_of; then per draft four: id, payload,
--       number of its kind, unique key
-- Returns how many jobs the queue had before, how many drafts are decided (the caller asks again for the others), 1 if
-- the queue has a bound (else 0), and of each draft that was not simply stored {nth, answer, created, holder, dropped,
-- depth, bound, when_full, block_timeout}, the last ones left out or '' where there is none.

local MOST = 1000 -- drafts

local moment = now(tonumber(ARGV[1]))
local wrong = unsound()
if wrong then
  return wrong
end

local count = tonumber(ARGV[2])
local kinds = kinds_of(3, count, moment)
local before_first = 2 + 12 * count
local drafts = (#ARGV - before_first) / 4
if drafts ~= math.floor(drafts) or drafts < 1 or drafts > MOST then
  return redis.error_reply('HFARGS ' .. #ARGV .. ' arguments, of which ' .. count .. ' kinds')
end

local before = call('ZCARD', JOBS)
local receive, write_all, room = admission(moment)
local answers, decided = {}, 0
for n = 1, drafts do
  local i = before_first + 4 * (n - 1)
  local answer = receive(ARGV[i + 1], ARGV[i + 2], kinds[tonumber(ARGV[i + 3])], ARGV[i + 4])
  if answer == false then
    break
  end
  decided = n
  if answer then
    answers[#answers + 1] = { n, unpack(answer) }
  end
end
write_all(decided < drafts)
return { before, decided, room and 1 or 0, unpack(answers) }
