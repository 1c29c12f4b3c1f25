-- Settles a running job whose row cannot be read as dead.
-- Parameters: id, the fence with which it was read, reason, shift
-- Returns whether it was met as it was.
CREATE OR REPLACE FUNCTION {schema}.holdfast_bury(corpse uuid, read_with bigint, why text, shift bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $body$
DECLARE
    buried text[];
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT job.ctid FROM {schema}.holdfast_jobs AS job
        WHERE job.id = corpse AND job.fence = read_with AND job.state = 'running'
        FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET
            state = 'dead', finished_at = {schema}.holdfast_now(shift), prune_at = NULL, reason = why,
            worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
        FROM picked WHERE job.ctid = picked.ctid
        RETURNING job.queue
    )
    SELECT array_agg(written.queue) INTO buried FROM written;
    IF buried IS NOT NULL THEN
        PERFORM {schema}.holdfast_tell(ARRAY[corpse]);
        PERFORM {schema}.holdfast_leave(buried);
    END IF;
    RETURN buried IS NOT NULL;
END
$body$;
