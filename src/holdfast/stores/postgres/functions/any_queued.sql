-- Whether one of `queues` (NULL: any queue) has a queued job. Looked up in the index, whatever the statistics say.
CREATE OR REPLACE FUNCTION {schema}.holdfast_any_queued(queues text[], shift bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $function$
BEGIN
    IF queues IS NULL THEN
        RETURN EXISTS (SELECT FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued');
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(queues) AS served (queue)
        CROSS JOIN LATERAL (
            SELECT FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'queued' AND job.queue = served.queue
            LIMIT 1
        ) AS filled
    );
END
$function$;
