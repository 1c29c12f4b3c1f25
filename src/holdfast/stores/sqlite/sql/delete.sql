-- Leaves of jobs only what recognises them. Parameters: now, now, TOMBSTONE. Each row: seq
UPDATE holdfast_jobs AS job
SET
    state = 'deleted', finished_at = coalesce(job.finished_at, ?), prune_at = coalesce(job.finished_at, ?) + ?,
    unique_key = NULL, headers = '', tags = '[]', reason = '', result = NULL, attempts = 0
FROM (VALUES (?)) AS wanted
WHERE job.seq = wanted.column1;
