-- Where some jobs stand; terms that cannot be read must not be in the way of a cancel or a delete.
-- Parameter: ids, a JSON array
-- Returns a JSON array of [id, seq, state, keep, whether a cancel was asked for, queue, unique key], in one row
SELECT json_group_array(json_array(
    id, seq, state, iif(json_valid(terms), CAST(coalesce(json_extract(terms, '$[6]'), 0) AS INTEGER), 0),
    cancel_requested_at IS NOT NULL, queue, unique_key
))
FROM holdfast_jobs
WHERE id IN (SELECT value FROM json_each(?)) AND state <> 'deleted';
