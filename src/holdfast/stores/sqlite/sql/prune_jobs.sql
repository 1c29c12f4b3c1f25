-- Deletes finished jobs whose time is over. Parameters: now, limit
DELETE FROM holdfast_jobs
WHERE seq IN (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_prunable WHERE prune_at <= ? ORDER BY prune_at, seq LIMIT ?
);
