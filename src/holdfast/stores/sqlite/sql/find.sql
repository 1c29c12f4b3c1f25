-- A page of a listing, newest first. find.py puts the conditions in place of {conditions}; last parameter: limit
-- Returns: seq, attempts, then the columns that rows.record_of reads
SELECT
    seq, attempts,
    id, task, queue, line, state, payload, terms, priority, tags, life, attempt, fence, releases, losses, crashes,
    alone, enqueued_at, due_at, started_at, finished_at, worker, cancel_requested_at,
    settled_fence, settled_by, settled_state, result, reason,
    headers, unique_key, unique_until, unique_hold, unique_clash, unique_over,
    (SELECT progress FROM holdfast_notes WHERE job = job.seq AND fence = job.fence),
    (SELECT text FROM holdfast_notes WHERE job = job.seq AND fence = job.fence),
    expires_at, deadline_at, fingerprint
FROM holdfast_jobs AS job
WHERE job.state <> 'deleted' AND {conditions}
ORDER BY enqueued_at DESC, id DESC
LIMIT ?;
