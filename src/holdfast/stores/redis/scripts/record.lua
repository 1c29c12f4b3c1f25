-- Adds what a worker reports to the history of this minute and of these ten. Each number of a reporter counts once, and
-- each part of it.
-- KEYS  the registry's 4
-- ARGV  1 shift  2 reporter  3 its number * 1000 + which part this is  4 how many tallies, each: what it is of, and numbers
--       that are added, as texts; then levels, each: what it is of, and numbers of which the highest are kept
-- Returns the highest number * 1000 + part of the reporter; 0 where it is not known.

local MINUTE = 60000
local moment, worker, stamp = now(tonumber(ARGV[1])), ARGV[2], tonumber(ARGV[3])
local _, wrong = lease_of_registry()
if wrong then
  return wrong
end
local life = life_of(redis.call('HGET', KEYS[3], worker))
if not life or life.retired then
  return 0
end
local REPORTERS, tallies = BASE .. 'reporters', tonumber(ARGV[4])
local last = tonumber(redis.call('HGET', REPORTERS, worker)) or 0
if stamp <= last then
  return last
end

local function numbers_of(text)
  local numbers = {}
  for number in string.gmatch(text or '', '%S+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  return numbers
end

-- What a step of the history will have: texts by what they are of.
local function added(key)
  local written = {}
  for i = 5, #ARGV, 2 do
    local of, numbers = ARGV[i], numbers_of(ARGV[i + 1])
    local before = numbers_of(written[of] or redis.call('HGET', key, of) or '')
    for n = 1, #numbers do
      local one, other = numbers[n], before[n] or 0
      numbers[n] = string.format('%.0f', i < 5 + 2 * tallies and one + other or math.max(one, other))
    end
    written[of] = table.concat(numbers, ' ')
  end
  return written
end

local steps = {}
for name, length in pairs({ minutes = MINUTE, tens = 10 * MINUTE }) do
  local start = moment - moment % length
  local key = BASE .. name .. ':' .. string.format('%.0f', start)
  redis.call('ZCARD', BASE .. name)
  steps[#steps + 1] = { index = BASE .. name, start = start, key = key, written = added(key) }
end

redis.call('HSET', REPORTERS, worker, string.format('%.0f', stamp))
for i = 1, #ARGV > 4 and #steps or 0 do
  local step = steps[i]
  redis.call('ZADD', step.index, step.start, string.format('%.0f', step.start))
  for of, text in pairs(step.written) do
    redis.call('HSET', step.key, of, text)
  end
end
return stamp
