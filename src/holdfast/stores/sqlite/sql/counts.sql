-- How many jobs the queues have in each state that is looked after. Each state is read off an index of its own.
-- Returns: queue, state, number, when the first is due (of those queued)
SELECT queue, 'queued', count(*), min(due_at) FROM holdfast_jobs INDEXED BY holdfast_ready
WHERE state = 'queued' GROUP BY queue
UNION ALL
SELECT queue, 'running', count(*), NULL FROM holdfast_jobs INDEXED BY holdfast_held
WHERE state = 'running' GROUP BY queue
UNION ALL
SELECT queue, 'scheduled', count(*), NULL FROM holdfast_jobs INDEXED BY holdfast_by_state
WHERE state = 'scheduled' GROUP BY queue
UNION ALL
SELECT queue, 'dead', count(*), NULL FROM holdfast_jobs INDEXED BY holdfast_by_state
WHERE state = 'dead' GROUP BY queue;
