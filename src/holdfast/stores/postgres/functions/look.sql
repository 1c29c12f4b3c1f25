-- Whether one of `queues` (NULL: any queue) that is not paused has a queued job, and which queues are paused. Looked up in
-- the index, whatever the statistics say.
CREATE OR REPLACE FUNCTION {schema}.holdfast_look(queues text[], shift bigint)
RETURNS TABLE (queued boolean, stopped text[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
AS $function$
DECLARE
    chosen text := '';
BEGIN
    stopped := ARRAY(
        SELECT pause.queue FROM {schema}.holdfast_pauses AS pause
        WHERE pause.until IS NULL OR pause.until > {schema}.holdfast_now(shift)
    );
    IF queues IS NOT NULL THEN
        queued := EXISTS (
            SELECT FROM unnest(queues) AS served (queue)
            CROSS JOIN LATERAL (
                SELECT FROM {schema}.holdfast_jobs AS job
                WHERE job.state = 'queued' AND job.queue = served.queue
                LIMIT 1
            ) AS filled
            WHERE served.queue <> ALL (stopped)
        );
    ELSIF stopped = '{}' THEN
        queued := EXISTS (SELECT FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued');
    ELSE
        LOOP
            chosen := (
                SELECT job.queue FROM {schema}.holdfast_jobs AS job
                WHERE job.state = 'queued' AND job.queue > chosen
                ORDER BY job.queue
                LIMIT 1
            );
            queued := chosen <> ALL (stopped);
            EXIT WHEN queued IS NOT FALSE;
        END LOOP;
        queued := coalesce(queued, false);
    END IF;
    RETURN NEXT;
END
$function$;
