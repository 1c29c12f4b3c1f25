-- The first of some queues that has queued jobs.
-- Parameters: their names, a JSON array; now where the time of some job is over (else NULL)
SELECT name.value FROM json_each(?1) AS name
WHERE EXISTS (
    SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_ready
    WHERE state = 'queued' AND queue = name.value
    AND (?2 IS NULL OR (
        coalesce(deadline_at > ?2, 1) AND (started_at IS NOT NULL OR coalesce(expires_at > ?2, 1))
    ))
)
ORDER BY name.key
LIMIT 1;
