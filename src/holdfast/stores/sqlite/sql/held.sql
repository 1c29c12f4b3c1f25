-- The jobs that a worker holds under a ticket; under NULL: those that it took over as a sweeper.
-- Parameters: worker, ticket, limit
-- Returns the columns that rows.claim_of reads
SELECT
    id, fence, task, queue, payload, terms, priority, attempt, releases, losses, crashes, alone,
    enqueued_at, due_at, started_at, loss
FROM holdfast_jobs INDEXED BY holdfast_held
WHERE state = 'running' AND worker = ? AND ticket IS ?
ORDER BY priority DESC, due_at, id
LIMIT ?;
