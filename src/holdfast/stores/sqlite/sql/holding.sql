-- Who holds some jobs and who settled them last. Parameter: their ids, a JSON array
-- Returns a JSON array of what finish._Row is made of, in one row: one step, whatever the number of jobs
SELECT json_group_array(json_array(
    seq, id, state, fence, worker, cancel_requested_at, settled_fence, settled_by, settled_state,
    attempt, started_at, attempts, reason
))
FROM holdfast_jobs
WHERE id IN (SELECT value FROM json_each(?));
