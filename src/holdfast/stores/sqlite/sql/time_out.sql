-- Ends jobs whose deadline is over; they are kept until someone decides. Parameter: now. Each row: seq
UPDATE holdfast_jobs AS job
SET state = 'dead', finished_at = ?, reason = 'deadline', prune_at = NULL
FROM (VALUES (?)) AS wanted
WHERE job.seq = wanted.column1;
