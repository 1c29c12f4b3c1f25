-- Takes over running jobs of one queue whose worker is gone: see Store.reclaim.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 lease in ms  3 sweeper  4 how many at most  5 which: "mine" (already, as a sweeper), "retired", "silent",
--       "look"  6 bytes of payloads after which no further job is taken  7 loss where nobody said more  8 of "mine": the id
--       behind which to begin, '' at first
-- Returns of a look {"stranger" (who must join first), "expired" or "live", and how many jobs there are of mine, of
-- retired and of silent workers}: of silent ones none unless the sweeper is steady, who cuts far leases too.
-- Else rows of jobs (held.lua) that are the sweeper's now.
local moment, lease, sweeper = now(tonumber(ARGV[1])), tonumber(ARGV[2]), ARGV[3]
local most, which, bytes = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local wrong = unsound()
if wrong then
  return wrong
end
if #ARGV ~= 8 then
  return redis.error_reply('HFARGS ' .. #ARGV .. ' arguments')
end
local me = life_of(call('HGET', WORKERS, sweeper))
local steady = me and is_live(me, moment) and is_steady(me, moment, lease)

local function is_silent(life)
  return not life or not is_live(life, moment)
end

-- Whose jobs the sweeper may have: "mine", "retired" or "silent"; nil while they are well.
local function kind_of(holder)
  if holder == sweeper then
    return 'mine'
  elseif call('HEXISTS', LOSSES, holder) == 1 then
    return 'retired'
  end
  return is_silent(life_of(call('HGET', WORKERS, holder))) and 'silent' or nil
end

-- The jobs that the sweeper has as such, by id.
local function swept()
  local held, ids = call('HGETALL', HELD .. sweeper), {}
  for i = 1, #held, 2 do
    if held[i + 1] == '' then
      ids[#ids + 1] = held[i]
    end
  end
  table.sort(ids)
  return ids
end

local function look()
  local counts, far = { mine = 0, retired = 0, silent = 0 }, {}
  local holders, rows = call('HGETALL', HOLDERS), call('HGETALL', WORKERS)
  for i = 1, #holders, 2 do
    local kind = kind_of(holders[i])
    if kind == 'mine' then
      counts.mine = #swept()
    elseif kind then
      counts[kind] = counts[kind] + holders[i + 1]
    end
  end
  for i = 1, #rows, 2 do
    local life = life_of(rows[i + 1])
    if life and cut(life, moment, lease) then
      far[rows[i]] = life
    end
  end
  if not me then
    local wanted = counts.mine + counts.retired + counts.silent > 0 or next(far)
    return { wanted and 'stranger' or 'live', 0, 0, 0 }
  elseif not is_live(me, moment) then
    return { 'expired', 0, 0, 0 }
  elseif not steady then
    return { 'live', counts.mine, counts.retired, 0 }
  end
  begin_writes(WORKERS)
  for worker, life in pairs(far) do
    call('HSET', WORKERS, worker, as_row(life))
  end
  return { 'live', counts.mine, counts.retired, counts.silent }
end

-- Some of the jobs that a worker holds; it may be thousands.
local function held_by(holder, limit)
  local ids, cursor = {}, '0'
  repeat
    local page = call('HSCAN', HELD .. holder, cursor, 'COUNT', limit)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      if #ids < limit then
        ids[#ids + 1] = page[2][i]
      end
    end
  until cursor == '0' or #ids >= limit
  return ids
end

-- The jobs of these workers that are to be taken over: all is read before the first of them is.
local function picked(holders)
  local jobs, unreal = {}, {}
  for _, holder in ipairs(holders) do
    local loss = string.match(call('HGET', LOSSES, holder) or '', '^%d+ (.+)$') or ARGV[7]
    local told = call('HEXISTS', WORKERS, holder) == 1
    call('SCARD', MAIL .. holder)
    for _, id in ipairs(held_by(holder, most - #jobs)) do
      local job = read_job(id)
      if job and job.state == 'running' and job.worker == holder then
        local said = call('HMGET', JOB .. id, 'loss', 'payload')
        job.said = said[1] and said[1] ~= '' and said[1] or loss
        job.told = told
        jobs[#jobs + 1] = job
        bytes = bytes - #(said[2] or '')
        if bytes < 0 then
          return jobs, unreal
        end
      else
        unreal[#unreal + 1] = { holder, id }
      end
    end
    if #jobs >= most then
      break
    end
  end
  return jobs, unreal
end

-- Whom a job's claims were taken from, as `prune` takes the lines back: "<worker> <fence> …", the last some.
local function robbed(job)
  local all = (job.robbed or '') .. job.worker .. ' ' .. job.fence .. ' '
  while #all > 1000 do
    all = string.gsub(all, '^%S+ %S+ ', '')
  end
  return all
end

local function take_over(job)
  take_out(job)
  if job.told then
    call('SADD', MAIL .. job.worker, 'lost ' .. job.id .. ' ' .. job.fence)
    write_job(job, 'robbed', robbed(job))
  end
  write_job(job, 'fence', job.fence + 1, 'worker', sweeper, 'ticket', false, 'loss', job.said)
  put_in(job)
end

if which == 'look' then
  return look()
elseif not me or not is_live(me, moment) or (which == 'silent' and not steady) then
  return {}
end
local rows = {}
if which == 'mine' then
  for _, id in ipairs(swept()) do
    if id > ARGV[8] and #rows < most and bytes >= 0 then
      local row, more = row_of(id)
      rows[#rows + 1] = row
      bytes = bytes - (row and bytes_of(row, more) or 0)
    end
  end
  return rows
end
local holders = {}
for _, holder in ipairs(call('HKEYS', HOLDERS)) do
  if kind_of(holder) == which then
    holders[#holders + 1] = holder
  end
end
call('HLEN', HELD .. sweeper)
local jobs, unreal = picked(holders)

for i = 1, #unreal do
  call('HDEL', HELD .. unreal[i][1], unreal[i][2])
  count_held(unreal[i][1], -1)
end
for i = 1, #jobs do
  take_over(jobs[i])
  rows[#rows + 1] = row_of(jobs[i].id)
end
return rows
