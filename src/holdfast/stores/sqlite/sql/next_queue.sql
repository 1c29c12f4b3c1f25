-- The first queue behind a name that has queued jobs.
-- Parameters: the name, now where the time of some job is over (else NULL)
SELECT queue FROM holdfast_jobs INDEXED BY holdfast_ready
WHERE state = 'queued' AND queue > ?1
AND (?2 IS NULL OR (
    coalesce(deadline_at > ?2, 1) AND (started_at IS NOT NULL OR coalesce(expires_at > ?2, 1))
))
ORDER BY queue
LIMIT 1;
