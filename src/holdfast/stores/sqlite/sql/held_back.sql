-- What is queued and must not be claimed. Parameter: now
-- Returns: whether the time of some job is over that does not run; the paused queues, a JSON array
SELECT
    EXISTS (
        SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_mortal
        WHERE (expires_at IS NOT NULL OR deadline_at IS NOT NULL) AND (state = 'queued' OR state = 'scheduled')
        AND iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at)
            <= ?1
    ),
    (SELECT json_group_array(queue) FROM holdfast_pauses WHERE coalesce(until > ?1, 1));
