-- Every worker whose row is kept, by id. Parameter: shift
-- Returns one row at least: now, id (NULL: there is none), supervisor, facts (JSON), beat_at, steady_since, lease_until,
-- retired_at.
SELECT
    clock.moment, worker.id, worker.supervisor, worker.facts, worker.beat_at, worker.steady_since, worker.lease_until,
    worker.retired_at
FROM (SELECT {schema}.holdfast_now(%b) AS moment) AS clock
LEFT JOIN {schema}.holdfast_workers AS worker ON true
ORDER BY worker.id;
