-- From now on a job whose row is deleted before its end gives its place back.
CREATE TRIGGER holdfast_count_deleted AFTER DELETE ON holdfast_jobs
WHEN OLD.finished_at IS NULL
BEGIN
    UPDATE holdfast_queues SET left = left + 1 WHERE name = OLD.queue AND max_size IS NOT NULL;
END;
