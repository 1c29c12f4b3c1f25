-- The payload of a job. Parameter: seq
SELECT payload FROM holdfast_jobs WHERE seq = ?;
