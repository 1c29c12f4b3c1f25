-- From now on a job that is stored takes a place, if its queue has a bound.
CREATE TRIGGER holdfast_count_stored AFTER INSERT ON holdfast_jobs
WHEN NEW.state = 'queued' OR NEW.state = 'scheduled' OR NEW.state = 'running' OR NEW.state = 'waiting'
BEGIN
    UPDATE holdfast_queues SET admitted = admitted + 1 WHERE name = NEW.queue AND max_size IS NOT NULL;
END;
