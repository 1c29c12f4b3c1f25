-- Where some jobs stand. Parameter: ids, a JSON array
-- Returns a JSON array of [id, seq, state, keep, whether a cancel was asked for], in one row
SELECT json_group_array(json_array(id, seq, state, terms ->> 6, cancel_requested_at IS NOT NULL))
FROM holdfast_jobs
WHERE id IN (SELECT value FROM json_each(?));
