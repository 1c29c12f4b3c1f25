-- Who holds a unique key, its time being over or not. Parameters: now, a task, queue, key
-- Returns: seq; id, as bytes; whether its time is over; whether it is of that task; whether it was not started in this
-- life
SELECT
    +seq, CAST(id AS BLOB),
    (state = 'succeeded' OR state = 'dead' OR state = 'cancelled') AND coalesce(finished_at + unique_hold <= ?, 1),
    task = ?,
    started_at IS NULL AND (state = 'queued' OR state = 'scheduled')
FROM holdfast_jobs INDEXED BY holdfast_keys
WHERE queue = ? AND unique_key = ?
AND (unique_until = 'finished' OR started_at IS NULL)
AND (
    state = 'queued' OR state = 'running' OR state = 'scheduled' OR state = 'waiting'
    OR (unique_hold > 0 AND unique_over = 0 AND state <> 'deleted')
);
