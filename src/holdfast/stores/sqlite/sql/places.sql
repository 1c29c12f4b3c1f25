-- Counts the unfinished jobs of some queues in one pass, each state by an index of its own. Parameter: their names, a
-- JSON array, three times
-- Returns: queue, as bytes; number. A queue without any is not among them.
SELECT CAST(queue AS BLOB), sum(number) FROM (
    SELECT queue, count(*) AS number FROM holdfast_jobs INDEXED BY holdfast_ready
    WHERE state = 'queued' AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
    UNION ALL
    SELECT queue, count(*) FROM holdfast_jobs INDEXED BY holdfast_by_state
    WHERE state = 'scheduled' AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
    UNION ALL
    SELECT queue, count(*) FROM holdfast_jobs INDEXED BY holdfast_held
    WHERE state = 'running' AND queue IN (SELECT value FROM json_each(?)) GROUP BY queue
)
GROUP BY queue;
