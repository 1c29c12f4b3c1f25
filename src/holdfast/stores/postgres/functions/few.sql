-- The unfinished jobs in some states, where they are few: a listing that looks for them among all that are finished
-- would read those too. Each state is read off an index of its own, whatever the statistics say.
-- Parameters: states, of queued, running and scheduled; a queue, or NULL; how many are few; shift (of no use)
-- Returns their ids; NULL if they are more.
CREATE OR REPLACE FUNCTION {schema}.holdfast_few(states text[], of_queue text, most bigint, shift bigint)
RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_custom_plan -- so that no queue is no condition
AS $function$
DECLARE
    found uuid[];
BEGIN
    found := ARRAY(
        (
            SELECT job.id FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'queued' AND 'queued' = ANY (states) AND (of_queue IS NULL OR job.queue = of_queue)
            ORDER BY job.queue, ~job.priority, job.due_at, job.id LIMIT most + 1
        )
        UNION ALL (
            SELECT job.id FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'running' AND 'running' = ANY (states) AND (of_queue IS NULL OR job.queue = of_queue)
            ORDER BY job.worker, job.ticket LIMIT most + 1
        )
        UNION ALL (
            SELECT job.id FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'scheduled' AND 'scheduled' = ANY (states) AND (of_queue IS NULL OR job.queue = of_queue)
            ORDER BY job.due_at, job.id LIMIT most + 1
        )
    );
    RETURN CASE WHEN cardinality(found) <= most THEN found END;
END
$function$;
