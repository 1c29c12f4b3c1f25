-- Where some jobs stand. Parameter: ids, a JSON array
-- Returns a JSON array of [id, seq, state, keep, whether a cancel was asked for, queue, unique key], in one row
SELECT json_group_array(json_array(id, seq, state, terms ->> 6, cancel_requested_at IS NOT NULL, queue, unique_key))
FROM holdfast_jobs
WHERE id IN (SELECT value FROM json_each(?)) AND state <> 'deleted';
