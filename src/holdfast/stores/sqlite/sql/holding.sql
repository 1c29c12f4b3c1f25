-- Who holds some jobs and who settled them last. Parameter: their ids, a JSON array
-- Returns a JSON array of what finish._Standing is made of, in one row: one step, whatever the number of jobs; as bytes,
-- which a caller's text_factory does not see
SELECT CAST(json_group_array(json_array(
    seq, id, iif(state = 'deleted', 'cancelled', state), fence, worker, cancel_requested_at,
    settled_fence, settled_by, settled_state, attempt, started_at, attempts, reason, state = 'deleted'
)) AS BLOB)
FROM holdfast_jobs
WHERE id IN (SELECT value FROM json_each(?));
