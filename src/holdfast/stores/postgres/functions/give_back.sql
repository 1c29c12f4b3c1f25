-- Gives back places that nobody else will: of reservations that ran out, and of jobs that were settled in a caller's
-- transaction and whose worker did not come to ask about it within a minute, or is `leaver` and never will.
-- Parameters: now; a worker that was retired just now, if any
CREATE OR REPLACE FUNCTION {schema}.holdfast_give_back(moment bigint, leaver uuid) RETURNS void
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    spared uuid[];
    settled text[];
    unused text[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT job.ctid FROM {schema}.holdfast_jobs AS job
        WHERE job.within AND (
            -- (So far ahead: the clock was set back.)
            job.finished_at NOT BETWEEN moment - 59999 AND moment + 60000 OR job.settled_by = leaver
        )
        ORDER BY job.finished_at
        LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job SET within = false FROM picked WHERE job.ctid = picked.ctid
        RETURNING job.id, job.queue
    )
    SELECT array_agg(written.id), array_agg(written.queue) INTO spared, settled FROM written;
    IF spared IS NOT NULL THEN
        DELETE FROM {schema}.holdfast_saved AS kept WHERE kept.job = ANY (spared);
    END IF;
    unused := {schema}.holdfast_expire(NULL, moment);
    IF settled IS NOT NULL OR unused <> '{}' THEN
        PERFORM {schema}.holdfast_leave(settled || unused);
    END IF;
END
$body$;
