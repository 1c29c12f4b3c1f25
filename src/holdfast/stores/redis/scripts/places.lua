-- Part: who has a unique key, whether a queue has a place left, and where the search for its oldest
-- job goes on.

-- The job that has a unique key, and whether its time is over: then the key is nobody's. nil where nobody has it.
local function holder_of(key, moment)
  local id = call('HGET', UNIQUE, key)
  local job = id and read_job(id)
  if not job or job.state == 'deleted' then
    return nil
  end
  return job, job.finished and moment >= job.finished + (tonumber(job.hold) or 0)
end

-- Gives a job its key. `lost`: the job that had it and whose time is over, if any.
local function take_key(job, lost)
  if lost and lost.id ~= job.id then
    write_job(lost, 'over', '1')
  end
  call('HSET', UNIQUE, job.key, job.id)
end

-- {depth, bound, when_full, block_timeout} of a queue that has a bound: how many places are taken, of how many.
local function bound()
  local said = call('HMGET', META, 'max_size', 'when_full', 'block_timeout', 'running')
  local size = tonumber(said[1])
  if not size then
    return nil
  end
  local depth = call('ZCARD', READY) + call('ZCARD', DUE) + (tonumber(said[4]) or 0)
  return { depth, size, said[2] or '', said[3] or '' }
end

-- `oldest` of the queue: "<enqueued_at> <id>", before which in `jobs` all are started or final. nil: nobody looked yet.
local function oldest()
  local said = call('HGET', META, 'oldest')
  if not said then
    return nil
  end
  local at, id = string.match(said, '^(%S+) (%S+)$')
  return tonumber(at), id
end

local function set_oldest(at, id)
  call('HSET', META, 'oldest', string.format('%.0f %s', at, id))
end

-- A job that may be dropped from now on, though it was enqueued before others: it is not overlooked.
local function set_back(job)
  local at, id = oldest()
  local mine = tonumber(job.at)
  if at and (mine < at or (mine == at and job.id < id)) then
    set_oldest(mine, job.id)
  end
end
