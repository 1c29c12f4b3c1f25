-- Settles a running job whose row cannot be read. Parameters: now, reason, seq, fence
UPDATE holdfast_jobs
SET
    state = 'dead', finished_at = ?, prune_at = NULL, reason = ?,
    worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
WHERE seq = ? AND fence = ? AND state = 'running';
