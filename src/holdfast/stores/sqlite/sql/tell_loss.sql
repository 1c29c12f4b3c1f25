-- Writes on claims that a worker still holds how they were lost; what is written already stays.
-- Each row: job (id), fence, loss (JSON), worker
UPDATE holdfast_jobs AS job SET loss = told.column3
FROM (VALUES (?, ?, ?, ?)) AS told
WHERE job.id = told.column1 AND job.fence = told.column2 AND job.worker = told.column4
    AND job.state = 'running' AND job.loss IS NULL;
