-- Takes the first jobs of a queue for a worker. Parameters: worker, ticket, now, queue, limit
UPDATE holdfast_jobs
SET state = 'running', attempt = attempt + 1, fence = fence + 1, worker = ?, ticket = ?, started_at = ?
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_ready
    WHERE state = 'queued' AND queue = ?
    ORDER BY priority DESC, due_at, id
    LIMIT ?
);
