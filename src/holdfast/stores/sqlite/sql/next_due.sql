-- When the next scheduled job is due, and when the time of the next job that does not run is over. Those that have none
-- any more stand first in the index; the least number leaps over them.
SELECT
    (SELECT due_at FROM holdfast_jobs INDEXED BY holdfast_scheduled WHERE state = 'scheduled' ORDER BY due_at LIMIT 1),
    (
        SELECT
            iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at)
            AS ends_at
        FROM holdfast_jobs INDEXED BY holdfast_mortal
        WHERE (expires_at IS NOT NULL OR deadline_at IS NOT NULL) AND (state = 'queued' OR state = 'scheduled')
        AND iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at)
            > -9223372036854775808
        ORDER BY ends_at
        LIMIT 1
    );
