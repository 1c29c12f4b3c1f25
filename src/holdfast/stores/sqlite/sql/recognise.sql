-- What a stored job, or what is left of one, is beside a draft of the same id.
-- Parameters: a job's seq, the draft's task, queue, payload, digest, id
-- Returns: whether the job is newer than that seq; whether its content, as it was enqueued, is the draft's
SELECT seq > ?, task = ? AND queue = ? AND iif(content IS NULL, payload = ?, content = ?)
FROM holdfast_jobs WHERE id = ?;
