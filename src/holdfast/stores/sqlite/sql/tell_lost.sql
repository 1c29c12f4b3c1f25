-- A line for a holder about each job that is about to be taken over. Parameters: holder, limit
INSERT INTO holdfast_mail (worker, job, fence, kind)
SELECT worker, id, fence, 'lost' FROM holdfast_jobs INDEXED BY holdfast_held
WHERE state = 'running' AND worker = ?
ORDER BY ticket, seq
LIMIT ?;
