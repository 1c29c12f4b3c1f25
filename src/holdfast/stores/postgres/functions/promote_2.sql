-- Ends scheduled and queued jobs whose time is over; then queues scheduled jobs that are due, the earliest first.
-- Parameters: limit, of each; shift
-- Returns how many it queued; when there is more to do (ms from now, NULL: there is nothing); the queues that have jobs
-- now; what was ended, a JSON array of [id, task, queue, reason] (NULL: nothing).
CREATE OR REPLACE FUNCTION {schema}.holdfast_promote_2(most bigint, shift bigint)
RETURNS TABLE (moved bigint, next_in bigint, filled text[], over text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET standard_conforming_strings = on -- backslashes
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
    ended uuid[];
    left_queues text[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT
            job.ctid, job.deadline_at IS NOT NULL AND job.deadline_at <= moment AS late,
            least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END) AS over_at
        FROM {schema}.holdfast_jobs AS job
        WHERE job.state IN ('queued', 'scheduled')
        AND least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END) <= moment
        ORDER BY least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END), job.id
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET
            state = CASE WHEN picked.late THEN 'dead' ELSE 'cancelled' END,
            reason = CASE WHEN picked.late THEN 'deadline' ELSE 'expired' END,
            finished_at = moment,
            prune_at = CASE WHEN NOT picked.late THEN moment + greatest(
                {schema}.holdfast_tombstone(),
                -- Terms that cannot be read must not be in the way.
                coalesce(substring(job.terms FROM ',\s*(\d{1,16})\s*\]\s*$')::bigint, 0),
                job.unique_hold
            ) END
        FROM picked WHERE job.ctid = picked.ctid
        RETURNING job.id, job.task, job.queue, job.reason, picked.over_at
    )
    SELECT
        json_agg(
            json_build_array(written.id, written.task, written.queue, written.reason)
            ORDER BY written.over_at, written.id
        ),
        array_agg(written.id), array_agg(written.queue)
    INTO over, ended, left_queues
    FROM written;

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
    next_in := least(
        (
            SELECT greatest(0, job.due_at - moment) FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'scheduled'
            ORDER BY job.due_at
            LIMIT 1
        ),
        (
            SELECT greatest(0, least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END) - moment)
            FROM {schema}.holdfast_jobs AS job
            WHERE job.state IN ('queued', 'scheduled')
            AND least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END) IS NOT NULL
            ORDER BY least(job.deadline_at, CASE WHEN job.started_at IS NULL THEN job.expires_at END)
            LIMIT 1
        )
    );
    IF next_in = 0 AND moved < most AND coalesce(cardinality(ended), 0) < most THEN
        next_in := 100; -- another transaction has its row: asking at once would be asking without end
    END IF;
    IF ended IS NOT NULL THEN
        PERFORM {schema}.holdfast_tell(ended);
        PERFORM {schema}.holdfast_leave(left_queues);
    END IF;
    RETURN NEXT;
END
$body$;
