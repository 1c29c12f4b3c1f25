-- A step of a listing: looks at the next jobs of an index, newest first, or at those that it is given.
-- KEYS  the 13 of a queue
-- ARGV  1 shift  2 which of KEYS is the index, ordered by (enqueued_at, id)  3 4 enqueued_at and id behind which it goes
--       on, '' and '' from the newest  5 how many it finds at most  6 how many it looks at  7 since, or ''
--       8 states, in words, or ''  9 task, 10 a tag as it stands in `kind`, 11 type of the newest kept error, 12 fingerprint:
--       '=' and the text, or ''  13 how ids begin  14 and end  15 worker, or ''  16… ids, instead of the index
-- Returns enqueued_at and id up to which it looked ('' and '' where there are no more), then of each job that it found
-- enqueued_at and id, newest first where it walked along the index. A tag may be found where the text is something else.

local index, wanted, most, since = KEYS[tonumber(ARGV[2])], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local states, worker, head, tail = ARGV[8] ~= '' and ' ' .. ARGV[8] .. ' ', ARGV[15], ARGV[13], ARGV[14]

local function meant(text)
  return text ~= '' and string.sub(text, 2)
end
local task, tag, error_type, fingerprint = meant(ARGV[9]), meant(ARGV[10]), meant(ARGV[11]), meant(ARGV[12])

-- The type of the newest kept error of a job: see history in finish.lua.
local function newest_error(id)
  for i = 1, call('LLEN', HISTORY .. id) do
    local run = call('LINDEX', HISTORY .. id, -i)
    local reason, length, start = string.match(run, '^%S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%S+) %S+ ()')
    if tonumber(length) then
      start = start + tonumber(reason)
      return string.sub(run, start, start + tonumber(length) - 1)
    end
  end
  return nil
end

-- enqueued_at of a job that fits, else nil.
local function fits(id)
  if string.sub(id, 1, #head) ~= head or tail ~= '' and string.sub(id, -#tail) ~= tail then
    return nil
  end
  local job = call('HMGET', JOB .. id, 'at', 'state', 'task', 'worker')
  if not job[1] then -- none, or what is left of a deleted one
    return nil
  end
  if states and not (job[2] and string.find(states, ' ' .. job[2] .. ' ', 1, true)) or task and job[3] ~= task then
    return nil
  end
  if worker ~= '' and (job[4] ~= worker or job[2] ~= 'running') then
    return nil
  end
  if tag and not string.find(call('HGET', JOB .. id, 'kind') or '', tag, 1, true) then
    return nil
  end
  if fingerprint and (call('HGET', JOB .. id, 'fingerprint') or '') ~= fingerprint then
    return nil
  end
  if error_type and newest_error(id) ~= error_type then
    return nil
  end
  return job[1]
end

-- How many of the index stand before what follows the cursor.
local function behind(at, id)
  if at == '' then
    return 0
  end
  local low = call('ZCOUNT', index, '(' .. at, '+inf')
  local high = low + call('ZCOUNT', index, at, at)
  while low < high do -- members of one time descend
    local middle = math.floor((low + high) / 2)
    if call('ZREVRANGE', index, middle, middle)[1] < id then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local found = { '', '' }
local function look(id)
  local at = fits(id)
  if at then
    found[#found + 1] = at
    found[#found + 1] = id
  end
end

if #ARGV > 15 then
  for i = 16, #ARGV do
    look(ARGV[i])
  end
  return found
end
local first = behind(ARGV[3], ARGV[4])
local ahead = call('ZREVRANGE', index, first, first + most - 1, 'WITHSCORES')
for i = 1, #ahead, 2 do
  local id, at = ahead[i], ahead[i + 1]
  if since and tonumber(at) < since then
    return found
  end
  look(id)
  if #found - 2 >= 2 * wanted or i == 2 * most - 1 then
    found[1], found[2] = at, id
    break
  end
end
return found
