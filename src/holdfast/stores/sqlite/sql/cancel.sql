-- Cancels jobs that are not running. Parameters: now, reason. Each row: seq, prune_at
UPDATE holdfast_jobs AS job
SET state = 'cancelled', finished_at = ?, reason = ?, prune_at = wanted.column2
FROM (VALUES (?, ?)) AS wanted
WHERE job.seq = wanted.column1;
