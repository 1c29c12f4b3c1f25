-- The payload of a job. Parameter: seq
SELECT CAST(payload AS BLOB) FROM holdfast_jobs WHERE seq = ?;
