-- What is laid down about queues. Parameter: shift
-- Returns, by name: name, max_size, when_full, block_timeout, weight, whether an operator said it, paused since, until,
-- why.
SELECT
    coalesce(said.name, pause.queue), said.max_size, coalesce(said.when_full, 'reject'), said.block_timeout,
    coalesce(said.weight, 1), said.edited IS NOT NULL, pause.since, pause.until, pause.reason
FROM {schema}.holdfast_queues AS said
FULL JOIN (
    SELECT paused.*
    FROM {schema}.holdfast_pauses AS paused, (SELECT {schema}.holdfast_now(%b) AS moment) AS clock
    WHERE paused.until IS NULL OR paused.until > clock.moment
) AS pause ON pause.queue = said.name
ORDER BY 1;
