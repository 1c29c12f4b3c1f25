-- Counts the places that are taken in a queue that has a bound from now on. Parameter: its name
UPDATE holdfast_queues AS queue
SET
    left = 0,
    admitted = (
        SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_ready
        WHERE state = 'queued' AND queue = queue.name
    ) + (
        SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_by_state
        WHERE state = 'scheduled' AND queue = queue.name
    ) + (
        SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_held
        WHERE state = 'running' AND queue = queue.name
    )
WHERE name = ?;
