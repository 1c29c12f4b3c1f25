-- Writes successes; a row whose word is not the holder's, or that is not running, is passed over.
-- Parameters: now, now
-- Each row: id, fence, worker, result, keep (NULL: for good), attempt, releases, losses, crashes, alone
UPDATE holdfast_jobs AS job
SET
    state = 'succeeded', finished_at = ?,
    prune_at = ? + max(done.column5, iif(job.unique_until = 'finished', job.unique_hold, 0)),
    result = done.column4, reason = '',
    attempt = done.column6, releases = done.column7, losses = done.column8, crashes = done.column9,
    alone = done.column10,
    settled_fence = job.fence, settled_by = job.worker, settled_state = 'succeeded',
    worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
FROM (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)) AS done
WHERE job.id = done.column1 AND +job.fence = done.column2 AND +job.worker = done.column3
AND +job.state = 'running';
