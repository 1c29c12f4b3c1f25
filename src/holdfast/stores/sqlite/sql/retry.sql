-- Gives dead and cancelled jobs a new life. Parameter: now. Each row: seq
UPDATE holdfast_jobs AS job
SET
    state = 'queued', due_at = ?, life = job.life + 1, attempt = 0, releases = 0, losses = 0, crashes = 0,
    alone = job.born_alone, started_at = NULL, finished_at = NULL, prune_at = NULL, result = NULL, reason = '',
    unique_over = 0, expires_at = NULL, deadline_at = NULL, fingerprint = ''
FROM (VALUES (?)) AS wanted
WHERE job.seq = wanted.column1;
