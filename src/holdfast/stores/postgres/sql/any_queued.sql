-- Whether any of some queues has queued jobs. Parameter: their names, NULL: every queue
-- The order makes the planner take the index of what is ready, whatever it believes of the table.
SELECT CASE
    WHEN wanted.queues IS NULL THEN EXISTS (
        SELECT 1 FROM {schema}.holdfast_jobs WHERE state = 'queued' ORDER BY queue, priority DESC, due_at, id LIMIT 1
    )
    ELSE EXISTS (
        SELECT 1 FROM unnest(wanted.queues) AS name WHERE EXISTS (
            SELECT 1 FROM {schema}.holdfast_jobs WHERE state = 'queued' AND queue = name
            ORDER BY priority DESC, due_at, id LIMIT 1
        )
    )
END
FROM (SELECT %b::text[] AS queues) AS wanted;
