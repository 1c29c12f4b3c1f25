-- Whether some words hold. Each row: id, fence, worker
-- Returns: id, fence, worker, seq, whether the job runs under the word (else it settled the job last, and nobody since)
SELECT job.id, said.column2, said.column3, job.seq, job.state = 'running' AND job.worker = said.column3
FROM (VALUES (?, ?, ?)) AS said
JOIN holdfast_jobs AS job ON job.id = said.column1
WHERE job.fence = said.column2
AND (
    (job.state = 'running' AND job.worker = said.column3)
    OR (job.settled_fence = job.fence AND job.settled_by = said.column3 AND job.state <> 'deleted')
);
