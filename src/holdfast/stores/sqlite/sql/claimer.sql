-- A worker's row, and what is queued and must not be claimed. Parameters: now, the worker's id
-- Returns: what worker.sql does; then what held_back.sql does
SELECT
    lease_until, retired_at, ticket, turn, beat_at, steady_since,
    EXISTS (
        SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_mortal
        WHERE (expires_at IS NOT NULL OR deadline_at IS NOT NULL) AND (state = 'queued' OR state = 'scheduled')
        AND iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at)
            <= ?1
    ),
    (SELECT json_group_array(queue) FROM holdfast_pauses WHERE coalesce(until > ?1, 1))
FROM holdfast_workers WHERE id = ?2;
