-- What is said of a queue. Parameter: its name
-- Returns: declared and edited (JSON as bytes); the places taken, NULL without a bound
SELECT CAST(declared AS BLOB), CAST(edited AS BLOB), iif(max_size IS NULL, NULL, admitted - left)
FROM holdfast_queues WHERE name = ?;
