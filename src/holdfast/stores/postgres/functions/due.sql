-- Schedules whose next tick is due, the longest overdue first. Parameters: limit, shift
-- Returns one row at least: now, then what sql/schedules.sql returns, without ticks; last how soon the next tick is due of
-- one that is not among them (ms; 0: there are more; NULL: never).
CREATE OR REPLACE FUNCTION {schema}.holdfast_due(most bigint, shift bigint) RETURNS TABLE (
    moment bigint, name text, queue text, text text, next_at bigint, paused_since bigint, paused_until bigint,
    paused_why text, revision bigint, ticks text, made bigint, skipped bigint, missed bigint, next_in bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $function$
BEGIN
    moment := {schema}.holdfast_now(shift);
    RETURN QUERY
    WITH coming AS MATERIALIZED (
        (
            SELECT entry.name, entry.next_at, entry.next_at AS ready_at
            FROM {schema}.holdfast_schedules AS entry
            WHERE entry.paused_since IS NULL AND entry.next_at IS NOT NULL
            ORDER BY entry.next_at, entry.name
            LIMIT most + 1 -- one more than are chosen
        )
        UNION ALL
        SELECT
            entry.name, entry.next_at,
            CASE WHEN entry.paused_until <= moment THEN entry.next_at
                ELSE greatest(entry.next_at, entry.paused_until) END
        FROM {schema}.holdfast_schedules AS entry
        WHERE entry.paused_until IS NOT NULL AND entry.next_at IS NOT NULL
    ),
    chosen AS MATERIALIZED (
        SELECT coming.name, coming.next_at FROM coming WHERE coming.ready_at <= moment
        ORDER BY coming.next_at, coming.name
        LIMIT most
    ),
    following AS (
        SELECT min(greatest(0, coming.ready_at - moment)) AS span FROM coming
        WHERE coming.name NOT IN (SELECT chosen.name FROM chosen)
    )
    SELECT
        moment, entry.name, entry.queue, entry.text, entry.next_at, entry.paused_since, entry.paused_until,
        entry.paused_why, entry.revision, '[]', entry.made, entry.skipped, entry.missed, following.span
    FROM following
    LEFT JOIN (
        chosen JOIN {schema}.holdfast_schedules AS entry ON entry.name = chosen.name
    ) ON true
    ORDER BY chosen.next_at, chosen.name;
END
$function$;
