-- The job of a queue that is dropped first: the oldest that was not started in this life. Parameter: the queue
-- Returns: seq; id, as bytes; keep
SELECT +seq, CAST(id AS BLOB), iif(json_valid(terms), CAST(coalesce(json_extract(terms, '$[6]'), 0) AS INTEGER), 0)
FROM holdfast_jobs
WHERE queue = ? AND started_at IS NULL AND (state = 'queued' OR state = 'scheduled')
ORDER BY enqueued_at, id
LIMIT 1;
