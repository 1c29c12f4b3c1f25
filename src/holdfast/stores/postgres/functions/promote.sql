-- Queues scheduled jobs that are due, the earliest first. Parameters: limit, shift
-- Returns how many; when the next is due (ms from now, NULL: none is scheduled); the queues that have jobs now.
CREATE OR REPLACE FUNCTION {schema}.holdfast_promote(most bigint, shift bigint)
RETURNS TABLE (moved bigint, next_in bigint, filled text[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT job.ctid FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'scheduled' AND job.due_at <= moment
        ORDER BY job.due_at, job.id
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job SET state = 'queued' FROM picked WHERE job.ctid = picked.ctid
        RETURNING job.queue
    )
    SELECT count(*), array_agg(DISTINCT written.queue) INTO moved, filled FROM written;
    next_in := (
        SELECT greatest(0, job.due_at - moment) FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'scheduled'
        ORDER BY job.due_at
        LIMIT 1
    );
    IF next_in = 0 AND moved < most THEN
        next_in := 100; -- another transaction has its row: asking at once would be asking without end
    END IF;
    RETURN NEXT;
END
$body$;
