-- Whether there is anything to prune.
-- Parameters: now, the latest retirement and the latest beat of a worker that is over
SELECT
    EXISTS (SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_prunable WHERE prune_at <= ?)
    OR EXISTS (SELECT 1 FROM holdfast_workers WHERE coalesce(retired_at <= ?, beat_at <= ?));
