-- The kept lines of a job's log. Parameter: its id. Returns: at, fence, text
SELECT line.at, line.fence, line.text FROM holdfast_jobs AS job JOIN holdfast_log AS line ON line.job = job.seq
WHERE job.id = ?
ORDER BY line.number;
