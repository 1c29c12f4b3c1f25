-- The first queue behind a name that has queued jobs. Parameter: the name
SELECT queue FROM holdfast_jobs INDEXED BY holdfast_ready
WHERE state = 'queued' AND queue > ?
ORDER BY queue
LIMIT 1;
