-- What a stored job is beside a draft of the same id.
-- Parameters: a job's seq, the draft's task, queue, payload, id
-- Returns: whether the job is newer than that seq; whether its content is the draft's
SELECT seq > ?, task = ? AND queue = ? AND payload = ? FROM holdfast_jobs WHERE id = ?;
