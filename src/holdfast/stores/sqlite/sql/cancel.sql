-- Cancels jobs that are not running. Parameters: now, reason, now. Each row: seq, prune_at
-- A unique key that is held at the end is held on for its time, and the job is kept as long.
UPDATE holdfast_jobs AS job
SET state = 'cancelled', finished_at = ?, reason = ?, prune_at = max(
    wanted.column2, ? + iif(job.unique_until = 'finished' OR job.started_at IS NULL, job.unique_hold, 0)
)
FROM (VALUES (?, ?)) AS wanted
WHERE job.seq = wanted.column1;
