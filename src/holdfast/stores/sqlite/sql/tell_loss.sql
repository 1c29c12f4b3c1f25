-- Writes on jobs that a worker still holds how they were lost; what is written already stays.
-- Each row: job (id), loss (JSON), worker
UPDATE holdfast_jobs AS job SET loss = told.column2
FROM (VALUES (?, ?, ?)) AS told
WHERE job.id = told.column1 AND job.state = 'running' AND job.worker = told.column3 AND job.loss IS NULL;
