-- The history. Parameters: whether in steps of ten minutes, since, before; all three once more
-- Returns, by start: start, queue, task, outcome, count, ran, waited, NULL, NULL; and start, queue, NULL, NULL, NULL, NULL,
-- NULL, depth, oldest.
SELECT
    step.start, step.queue, step.task, step.outcome, step.count, step.ran, step.waited,
    NULL::bigint AS depth, NULL::bigint AS oldest
FROM {schema}.holdfast_minutes AS step WHERE step.tens = %b AND step.start >= %b AND step.start < %b
UNION ALL
SELECT step.start, step.queue, NULL, NULL, NULL, NULL, NULL, step.depth, step.oldest
FROM {schema}.holdfast_levels AS step WHERE step.tens = %b AND step.start >= %b AND step.start < %b
ORDER BY 1, 2, 3, 4;
