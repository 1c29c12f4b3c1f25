-- Whether any queue has queued jobs.
SELECT EXISTS (SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_ready WHERE state = 'queued');
