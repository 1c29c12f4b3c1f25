-- Takes a holder's jobs over. Parameters: sweeper, loss (JSON), holder, limit
UPDATE holdfast_jobs SET fence = fence + 1, worker = ?, ticket = NULL, loss = coalesce(loss, ?)
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_held
    WHERE state = 'running' AND worker = ?
    ORDER BY ticket, seq
    LIMIT ?
);
