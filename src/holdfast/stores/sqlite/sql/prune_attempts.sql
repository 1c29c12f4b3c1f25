-- Deletes the history of the jobs that prune_jobs will delete. Parameters: now, limit
DELETE FROM holdfast_attempts
WHERE job IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_prunable WHERE prune_at <= ? ORDER BY prune_at, seq LIMIT ?
);
