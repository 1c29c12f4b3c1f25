-- The jobs that a worker holds under a ticket, in no order; under NULL: those that it took over as a sweeper.
-- Parameters: a fence up to which nothing can have been saved (1 for jobs that were claimed just now), worker, ticket,
-- limit
-- Returns the fields of a Claim, in their order, and seq
SELECT
    id, fence, worker, task, queue, payload, terms, priority, attempt, releases, losses, crashes, alone,
    enqueued_at, due_at, started_at, loss,
    headers, iif(fence > ?, (SELECT saved FROM holdfast_saved WHERE job = seq), NULL),
    deadline_at, seq
FROM holdfast_jobs INDEXED BY holdfast_held
WHERE state = 'running' AND worker = ? AND ticket IS ?
LIMIT ?;
