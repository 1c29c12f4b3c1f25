-- From now on a job that ends gives its place back, one that lives again takes one, and one that moves does both.
-- Not `OF state`: a claim would pay for it.
CREATE TRIGGER holdfast_count_ended AFTER UPDATE OF finished_at, queue ON holdfast_jobs
WHEN (OLD.finished_at IS NULL) <> (NEW.finished_at IS NULL) OR OLD.queue <> NEW.queue
BEGIN
    UPDATE holdfast_queues SET left = left + 1
    WHERE OLD.finished_at IS NULL AND name = OLD.queue AND max_size IS NOT NULL;
    UPDATE holdfast_queues SET admitted = admitted + 1
    WHERE NEW.finished_at IS NULL AND name = NEW.queue AND max_size IS NOT NULL;
END;
