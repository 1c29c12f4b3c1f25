-- Asks for the end of running jobs. Parameters: now, reason. Each row: seq
UPDATE holdfast_jobs AS job
SET cancel_requested_at = ?, cancel_fence = job.fence, reason = ?
FROM (VALUES (?)) AS wanted
WHERE job.seq = wanted.column1;
