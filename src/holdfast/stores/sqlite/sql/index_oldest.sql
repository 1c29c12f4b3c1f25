-- From now on the oldest job of a queue that was not started is found at once.
CREATE INDEX holdfast_oldest ON holdfast_jobs (queue, enqueued_at, id)
WHERE started_at IS NULL AND (state = 'queued' OR state = 'scheduled');
