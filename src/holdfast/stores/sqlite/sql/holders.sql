-- Everybody who holds jobs, found by leaps through the index, with what is known of them.
-- Returns: id, supervisor, lease_until (NULL: no such worker), retired_at, loss
WITH RECURSIVE holder (id) AS (
    SELECT (
        SELECT worker FROM holdfast_jobs INDEXED BY holdfast_held
        WHERE state = 'running'
        ORDER BY worker
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT worker FROM holdfast_jobs INDEXED BY holdfast_held
        WHERE state = 'running' AND worker > holder.id
        ORDER BY worker
        LIMIT 1
    )
    FROM holder WHERE holder.id IS NOT NULL
)
SELECT holder.id, life.supervisor, life.lease_until, life.retired_at, life.loss
FROM holder LEFT JOIN holdfast_workers AS life ON life.id = holder.id
WHERE holder.id IS NOT NULL;
