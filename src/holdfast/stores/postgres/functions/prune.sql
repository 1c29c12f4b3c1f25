-- Deletes what is over: finished jobs with all that belongs to them, workers that hold nothing, reservations that ran
-- out, old history; and gives back the places of jobs whose worker never came to ask about its caller's transaction.
-- Parameters: limit, shift. Returns how many jobs.
CREATE OR REPLACE FUNCTION {schema}.holdfast_prune(most bigint, shift bigint) RETURNS bigint
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
    picked uuid[];
    over uuid[] := '{}';
    one uuid;
BEGIN
    PERFORM {schema}.holdfast_give_back(moment, NULL);  -- first: of what is deleted nobody knows any more
    picked := ARRAY(
        SELECT job.id FROM {schema}.holdfast_jobs AS job
        WHERE job.prune_at <= moment
        ORDER BY job.prune_at
        LIMIT greatest(0, most)
        FOR UPDATE SKIP LOCKED
    );
    BEGIN
        DELETE FROM {schema}.holdfast_jobs AS job WHERE job.id = ANY (picked);
        over := picked;
    EXCEPTION WHEN foreign_key_violation THEN -- a table of the user's keeps one: all others go, it is asked for again
        FOREACH one IN ARRAY picked LOOP
            BEGIN
                DELETE FROM {schema}.holdfast_jobs AS job WHERE job.id = one;
                over := over || one;
            EXCEPTION WHEN foreign_key_violation THEN
                UPDATE {schema}.holdfast_jobs AS job SET prune_at = moment + 3600000 WHERE job.id = one;
            END;
        END LOOP;
    END;
    IF over <> '{}' THEN
        DELETE FROM {schema}.holdfast_attempts AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_notes AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_saved AS old WHERE old.job = ANY (over);
        DELETE FROM {schema}.holdfast_log AS old WHERE old.job = ANY (over);
        IF EXISTS (SELECT FROM {schema}.holdfast_mail) THEN
            DELETE FROM {schema}.holdfast_mail AS old WHERE old.job = ANY (over);
        END IF;
    END IF;
    PERFORM {schema}.holdfast_prune_workers(moment);
    PERFORM {schema}.holdfast_prune_history(moment);
    RETURN cardinality(over);
END
$body$;
