-- Queues scheduled jobs that are due, the earliest first. Parameters: now, limit
UPDATE holdfast_jobs SET state = 'queued'
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_scheduled
    WHERE state = 'scheduled' AND due_at <= ?
    ORDER BY due_at, id
    LIMIT ?
);
