-- Gives a job that was not started another payload, and other times.
-- Parameters: payload, state, due_at, expires_at, deadline_at, the digest of what it was until now, seq
UPDATE holdfast_jobs
SET payload = ?, state = ?, due_at = ?, expires_at = ?, deadline_at = ?, content = coalesce(content, ?)
WHERE seq = ?;
