-- Deletes what is over: finished jobs with all that belongs to them, workers that hold nothing, reservations that ran
-- out; and gives back the places of jobs whose worker never came to ask about its caller's transaction.
-- Parameters: limit, shift. Returns how many jobs.
CREATE OR REPLACE FUNCTION {schema}.holdfast_prune(most bigint, shift bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
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
    over uuid[];
BEGIN
    PERFORM {schema}.holdfast_give_back(moment, NULL);  -- first: of what is deleted nobody knows any more
    WITH picked AS MATERIALIZED (
        SELECT job.ctid FROM {schema}.holdfast_jobs AS job
        WHERE job.prune_at <= moment
        ORDER BY job.prune_at
        LIMIT greatest(0, most)
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM {schema}.holdfast_jobs AS job USING picked WHERE job.ctid = picked.ctid
        RETURNING job.id
    )
    SELECT coalesce(array_agg(gone.id), '{}') INTO over FROM gone;
    IF over <> '{}' THEN
        DELETE FROM {schema}.holdfast_attempts AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_notes AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_saved AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_log AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_mail AS old WHERE old.job = ANY (over);
    END IF;
    PERFORM {schema}.holdfast_prune_workers(moment);
    RETURN cardinality(over);
END
$body$;
