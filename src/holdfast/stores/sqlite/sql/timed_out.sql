-- Jobs that do not run and whose time is over, the longest first. Parameters: now, limit
-- Returns: seq, keep, whether that is its deadline, id, task, queue
SELECT
    seq, iif(json_valid(terms), CAST(coalesce(json_extract(terms, '$[6]'), 0) AS INTEGER), 0),
    coalesce(deadline_at <= ?1, 0), id, task, queue
FROM holdfast_jobs INDEXED BY holdfast_mortal
WHERE (expires_at IS NOT NULL OR deadline_at IS NOT NULL) AND (state = 'queued' OR state = 'scheduled')
AND iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at) <= ?1
ORDER BY
    iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at), id
LIMIT ?2;
