-- A queue as it is met, if it has a bound. Parameter: its name
-- Returns: jobs admitted and unfinished, max_size, when_full (as bytes), block_timeout
SELECT admitted - left, +max_size, CAST(when_full AS BLOB), +block_timeout FROM holdfast_queues
WHERE name = ? AND max_size IS NOT NULL;
