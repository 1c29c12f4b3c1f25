-- Removes reservations that ran out, of one queue or (NULL) of all. Returns the queues of the places that are free with
-- it, one entry for each.
--
-- Whoever uses one deletes it, so its row is locked while his transaction is open. Where his snapshot is older than the
-- reservation he cannot see it, and takes an advisory lock instead (holdfast_hidden): once that is gone, his job tells.
CREATE OR REPLACE FUNCTION {schema}.holdfast_expire(queue_name text, moment bigint) RETURNS text[]
LANGUAGE plpgsql
AS $function$
DECLARE
    over uuid[];
    free text[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT place.job FROM {schema}.holdfast_reservations AS place
        -- (Further off than it can be: the clock was set back. `moment` may be old, as its call may have waited.)
        WHERE (place.until <= moment OR place.until > moment + 2 * {schema}.holdfast_reserved())
            AND (queue_name IS NULL OR place.queue = queue_name)
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    )
    SELECT array_agg(picked.job) INTO over FROM picked
    WHERE pg_try_advisory_xact_lock({schema}.holdfast_lock_of(picked.job));
    IF over IS NULL THEN
        RETURN '{}';
    END IF;
    WITH gone AS (
        DELETE FROM {schema}.holdfast_reservations AS place WHERE place.job = ANY (over)
        RETURNING place.job, place.queue
    )
    SELECT array_agg(gone.queue) INTO free FROM gone
    WHERE NOT EXISTS (SELECT 1 FROM {schema}.holdfast_jobs AS stored WHERE stored.id = gone.job);
    RETURN coalesce(free, '{}');
END
$function$;
