-- The kept lines of a job's log, the oldest first; none of a deleted job. Parameter: its id. Returns: at, fence, text
SELECT line.at, line.fence, line.text
FROM {schema}.holdfast_log AS line
JOIN {schema}.holdfast_jobs AS job ON job.id = line.job AND job.state <> 'deleted'
WHERE line.job = %b
ORDER BY line.number;
