-- The queues as they are in one moment. Each state is read off an index of its own. Parameter: shift
-- Returns one row of the moment alone, then per queue and state: now, queue, state, number, when the first is due (of
-- those queued); and per queue of which something is said: now, queue, NULL, NULL, NULL, max_size, when_full,
-- block_timeout, weight, whether an operator said it, places taken, dropped, paused since, until, why
WITH clock AS MATERIALIZED (SELECT {schema}.holdfast_now(%b) AS moment),
counted AS (
    SELECT queue, 'queued' AS state, count(*) AS number, min(due_at) AS first_due
    FROM {schema}.holdfast_jobs WHERE state = 'queued' GROUP BY queue
    UNION ALL
    SELECT queue, 'running', count(*), NULL FROM {schema}.holdfast_jobs WHERE state = 'running' GROUP BY queue
    UNION ALL
    SELECT queue, 'scheduled', count(*), NULL FROM {schema}.holdfast_jobs WHERE state = 'scheduled' GROUP BY queue
    UNION ALL
    SELECT queue, 'dead', count(*), NULL FROM {schema}.holdfast_jobs WHERE state = 'dead' GROUP BY queue
)
SELECT clock.moment, told.* FROM clock LEFT JOIN (
    SELECT
        queue, state, number, first_due, NULL::bigint AS max_size, NULL AS when_full, NULL::bigint AS block_timeout,
        NULL::bigint AS weight, NULL::boolean AS edited, NULL::bigint AS admitted, NULL::bigint AS dropped,
        NULL::bigint AS since, NULL::bigint AS until, NULL AS why
    FROM counted
    UNION ALL
    SELECT
        coalesce(said.name, pause.queue), NULL, NULL, NULL, said.max_size, coalesce(said.when_full, 'reject'),
        said.block_timeout, coalesce(said.weight, 1), said.edited IS NOT NULL,
        said.admitted - coalesce(given_back.places, 0), coalesce(said.dropped, 0), pause.since, pause.until, pause.reason
    FROM {schema}.holdfast_queues AS said
    LEFT JOIN {schema}.holdfast_left AS given_back ON given_back.queue = said.name
    FULL JOIN (
        SELECT paused.* FROM {schema}.holdfast_pauses AS paused, clock
        WHERE paused.until IS NULL OR paused.until > clock.moment
    ) AS pause ON pause.queue = said.name
) AS told ON true;
