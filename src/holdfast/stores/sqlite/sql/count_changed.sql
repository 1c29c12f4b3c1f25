-- From now on a job that ends gives its place back, one that lives again takes one, and one that moves does both.
CREATE TRIGGER holdfast_count_changed AFTER UPDATE OF state, queue ON holdfast_jobs
WHEN OLD.queue <> NEW.queue
    OR (OLD.state = 'running' OR OLD.state = 'queued' OR OLD.state = 'scheduled' OR OLD.state = 'waiting')
    <> (NEW.state = 'running' OR NEW.state = 'queued' OR NEW.state = 'scheduled' OR NEW.state = 'waiting')
BEGIN
    UPDATE holdfast_queues SET left = left + 1
    WHERE name = OLD.queue AND max_size IS NOT NULL
    AND (OLD.state = 'running' OR OLD.state = 'queued' OR OLD.state = 'scheduled' OR OLD.state = 'waiting');
    UPDATE holdfast_queues SET admitted = admitted + 1
    WHERE name = NEW.queue AND max_size IS NOT NULL
    AND (NEW.state = 'running' OR NEW.state = 'queued' OR NEW.state = 'scheduled' OR NEW.state = 'waiting');
END;
