-- Schedules whose next tick is due, the longest overdue first. Parameters: shift; limit, twice
-- Returns one row at least: now, then as schedules.sql does, without ticks; last how soon the next tick is due of one that
-- is not among them (ms; 0: there are more; NULL: never).
WITH clock AS MATERIALIZED (SELECT {schema}.holdfast_now(%b) AS moment),
coming AS MATERIALIZED (
    (
        SELECT entry.name, entry.next_at, entry.next_at AS ready_at
        FROM {schema}.holdfast_schedules AS entry
        WHERE entry.paused_since IS NULL AND entry.next_at IS NOT NULL
        ORDER BY entry.next_at, entry.name
        LIMIT %b::bigint + 1 -- one more than are chosen
    )
    UNION ALL
    SELECT
        entry.name, entry.next_at,
        CASE WHEN entry.paused_until <= clock.moment THEN entry.next_at
            ELSE greatest(entry.next_at, entry.paused_until) END
    FROM {schema}.holdfast_schedules AS entry, clock
    WHERE entry.paused_until IS NOT NULL AND entry.next_at IS NOT NULL
),
chosen AS MATERIALIZED (
    SELECT coming.name FROM coming, clock WHERE coming.ready_at <= clock.moment
    ORDER BY coming.next_at, coming.name
    LIMIT %b
)
SELECT
    clock.moment, entry.name, entry.queue, entry.text, entry.next_at, entry.paused_since, entry.paused_until,
    entry.paused_why, entry.revision, '[]', entry.made, entry.skipped, entry.missed,
    (
        SELECT min(greatest(0, coming.ready_at - clock.moment)) FROM coming
        WHERE coming.name NOT IN (SELECT chosen.name FROM chosen)
    )
FROM clock
LEFT JOIN {schema}.holdfast_schedules AS entry ON entry.name IN (SELECT chosen.name FROM chosen)
ORDER BY entry.next_at, entry.name;
