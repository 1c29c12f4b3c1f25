-- Counts the unfinished jobs of a queue, each state by an index of its own. Parameters: its name, three times
SELECT (
    SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_ready WHERE state = 'queued' AND queue = ?
) + (
    SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_by_state WHERE state = 'scheduled' AND queue = ?
) + (
    SELECT count(*) FROM holdfast_jobs INDEXED BY holdfast_held WHERE state = 'running' AND queue = ?
);
