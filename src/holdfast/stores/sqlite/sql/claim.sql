-- Takes the first jobs of a queue for a worker whose next ticket this is and whose lease is live.
-- Parameters: worker, ticket, now, queue, limit, worker, ticket, now
UPDATE holdfast_jobs
SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ?, ticket = ?, started_at = ?
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_ready
    WHERE state = 'queued' AND queue = ?
    ORDER BY priority DESC, due_at, id
    LIMIT ?
)
AND EXISTS (
    SELECT 1 FROM holdfast_workers
    WHERE id = ? AND ticket = ? - 1 AND retired_at IS NULL AND lease_until > ?
);
