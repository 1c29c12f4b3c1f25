-- Part: jobs as they stand in claims.

local PLAIN = { 'task', 'kind', 'payload', 'at', 'due', 'fence', 'odd' }
local MORE = {
  'priority', 'alone', 'attempt', 'releases', 'losses', 'crashes', 'started', 'loss', 'noted', 'key', 'until',
}

local immortal -- whether no job that is queued has a time after which it is over

-- The row of a job that is claimed for the first time, and has nothing odd: task, kind, payload, enqueued_at, due, id.
-- Of any other: id, task, kind, payload, enqueued_at, due, fence, priority, alone, attempt, releases, losses, crashes,
-- started_at, loss, saved, deadline; and second what was read of MORE, and `expires`. nil where there is no such job.
-- `is_queued`: it is not claimed yet.
local function row_of(id, is_queued)
  local plain = call('HMGET', JOB .. id, unpack(PLAIN))
  local fence = plain[6]
  if not plain[1] then
    return nil
  elseif not fence and not plain[7] then
    plain[6], plain[7] = id, nil
    return plain
  end
  local more = call('HMGET', JOB .. id, unpack(MORE))
  local row = { id, plain[1], plain[2] or '', plain[3] or '', plain[4] or '', plain[5] or '', fence or '0' }
  for i = 1, 8 do
    row[7 + i] = more[i] or (i == 2 or i > 6) and '' or '0'
  end
  row[16], row[17] = more[9] and call('HGET', NOTE .. id, 'saved') or false, ''
  if is_queued and immortal == nil then
    immortal = call('ZCARD', BASE .. 'ends') == 0
  end
  if not (is_queued and immortal) then
    local limits = call('HMGET', JOB .. id, 'deadline', 'expires')
    row[17], more.expires = limits[1] or '', limits[2]
  end
  return row, more
end

local function bytes_of(row, more)
  if not more then
    return #row[2] + #row[3]
  end
  return #row[3] + #row[4] + #row[15] + (row[16] and #row[16] or 0)
end
