-- Writes outcomes of any kind on jobs that may be settled.
-- Each row: seq, state, attempt, releases, losses, crashes, alone, due_at (NULL: as it was), finished_at, prune_at,
-- result, reason, settled_fence, settled_by, attempts, fingerprint
UPDATE holdfast_jobs AS job
SET
    state = done.column2, attempt = done.column3, releases = done.column4, losses = done.column5,
    crashes = done.column6, alone = done.column7, due_at = coalesce(done.column8, job.due_at),
    finished_at = done.column9,
    prune_at = max(done.column10, done.column9 + iif(job.unique_until = 'finished', job.unique_hold, 0)),
    result = done.column11, reason = done.column12,
    settled_fence = done.column13, settled_by = done.column14, settled_state = done.column2,
    attempts = done.column15, fingerprint = done.column16,
    worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) AS done
WHERE job.seq = done.column1;
