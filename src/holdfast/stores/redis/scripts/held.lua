-- Part: jobs as they stand in claims.

local EARLY = { 'task', 'kind', 'payload', 'at', 'due', 'fence', 'priority', 'alone', 'key' }
local LATE = { 'attempt', 'releases', 'losses', 'crashes', 'loss', 'noted', 'started' }

-- A job's row: id, task, kind, payload, enqueued_at, due; of one that is not simply on its first run (`plain`) also
-- fence, priority, alone, attempt, releases, losses, crashes, started_at, loss, saved. nil where there is no such job.
-- Second what was read of EARLY, third of LATE, which nobody has who was never claimed.
local function row_of(id)
  local said = call('HMGET', JOB .. id, unpack(EARLY))
  if not said[1] then
    return nil
  end
  local later = said[6] and call('HMGET', JOB .. id, unpack(LATE)) or {}
  local row = { id, said[1], said[2] or '', said[3] or '', said[4] or '', said[5] or '' }
  if said[6] or said[8] or said[7] and said[7] ~= '0' then
    local saved = later[6] and call('HGET', NOTE .. id, 'saved') or false
    row[7], row[8], row[9], row[10], row[11] = said[6] or '0', said[7] or '0', said[8] or '', later[1] or '0', later[2] or '0'
    row[12], row[13], row[14], row[15], row[16] = later[3] or '0', later[4] or '0', later[7] or '', later[5] or '', saved
  end
  return row, said, later
end

local function bytes_of(row)
  return #row[4] + (row[15] and #row[15] or 0) + (row[16] and #row[16] or 0)
end
