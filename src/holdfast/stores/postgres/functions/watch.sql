-- Whether one of these jobs has ended or is gone. If not, and `span` is not NULL, whoever ends one is asked to tell,
-- for so many ms at least; not where the caller's role may only read: it looks again. Parameters: ids, span, shift
CREATE OR REPLACE FUNCTION {schema}.holdfast_watch(ids uuid[], span bigint, shift bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
BEGIN
    IF EXISTS (
        SELECT FROM unnest(ids) AS one (id)
        LEFT JOIN LATERAL (SELECT job.state FROM {schema}.holdfast_jobs AS job WHERE job.id = one.id OFFSET 0) AS known ON true
        WHERE known.state IS NULL OR known.state IN ('succeeded', 'dead', 'cancelled', 'deleted')
    ) THEN
        RETURN true;
    END IF;
    IF span IS NOT NULL THEN
        BEGIN
            INSERT INTO {schema}.holdfast_watched AS known (job, until)
            SELECT DISTINCT one.id, moment + span + 30000 FROM unnest(ids) AS one (id) ORDER BY one.id
            ON CONFLICT (job) DO UPDATE SET until = excluded.until
            WHERE known.until NOT BETWEEN moment + span AND excluded.until; -- it runs out too soon
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END IF;
    RETURN false;
END
$function$;
