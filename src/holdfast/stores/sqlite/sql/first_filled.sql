-- The first of some queues that has queued jobs. Parameter: their names, a JSON array
SELECT name.value FROM json_each(?) AS name
WHERE EXISTS (
    SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_ready WHERE state = 'queued' AND queue = name.value
)
ORDER BY name.key
LIMIT 1;
