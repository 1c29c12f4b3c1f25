-- The kept attempts of some jobs, oldest first. Parameter: their seqs, a JSON array
-- Returns: job, then the columns that rows.attempt_of reads
SELECT
    job, attempt, fence, worker, started_at, ended_at, ended, reason, error_type, error_message, error_traceback
FROM holdfast_attempts
WHERE job IN (SELECT value FROM json_each(?))
ORDER BY job, number;
