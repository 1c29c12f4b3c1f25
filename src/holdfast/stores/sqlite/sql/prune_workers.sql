-- Deletes workers that are over and hold nothing.
-- Parameters: the latest retirement and the latest beat of a worker that is over
DELETE FROM holdfast_workers
WHERE coalesce(retired_at <= ?, beat_at <= ?)
AND NOT EXISTS (
    SELECT 1 FROM holdfast_jobs INDEXED BY holdfast_held WHERE state = 'running' AND worker = holdfast_workers.id
);
