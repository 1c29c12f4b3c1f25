-- Which of some workers are registered and not retired. Parameter: ids (a JSON array). Returns a JSON array of ids
SELECT json_group_array(id) FROM holdfast_workers
WHERE id IN (SELECT value FROM json_each(?)) AND retired_at IS NULL;
