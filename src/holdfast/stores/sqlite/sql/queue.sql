-- What is said of a queue. Parameter: its name
-- Returns: declared and edited (JSON as bytes), whether it has a bound
SELECT CAST(declared AS BLOB), CAST(edited AS BLOB), max_size IS NOT NULL FROM holdfast_queues WHERE name = ?;
