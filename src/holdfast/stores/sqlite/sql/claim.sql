-- Takes the first jobs of a queue for a worker.
-- Parameters: worker, ticket, now, queue, limit, now where the time of some job is over (else NULL)
UPDATE holdfast_jobs
SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ?1, ticket = ?2, started_at = ?3
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_ready
    WHERE state = 'queued' AND queue = ?4
    AND (?6 IS NULL OR (
        coalesce(deadline_at > ?6, 1) AND (started_at IS NOT NULL OR coalesce(expires_at > ?6, 1))
    ))
    ORDER BY priority DESC, due_at, id
    LIMIT ?5
);
