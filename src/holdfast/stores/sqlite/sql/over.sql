-- The finished jobs whose time is over. Parameters: now, limit. Returns a JSON array of their seqs
SELECT json_group_array(seq) FROM (
    SELECT seq FROM holdfast_jobs INDEXED BY holdfast_prunable WHERE prune_at <= ? ORDER BY prune_at, seq LIMIT ?
);
