-- Ends the oldest job of a queue that was not started in this life, as cancelled with the reason "dropped". One that is
-- just being claimed is passed over. Returns its id, or NULL if there is none.
CREATE OR REPLACE FUNCTION {schema}.holdfast_drop_oldest(queue_name text, moment bigint) RETURNS uuid
LANGUAGE plpgsql
AS $function$
DECLARE
    oldest record;
BEGIN
    SELECT job.id, job.unique_hold, substring(job.terms FROM '([0-9]{1,15})[^0-9]*$') AS keep INTO oldest
    FROM {schema}.holdfast_jobs AS job
    WHERE job.queue = queue_name AND job.started_at IS NULL AND job.state IN ('queued', 'scheduled')
    ORDER BY job.enqueued_at, job.id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE {schema}.holdfast_jobs AS job
    SET
        state = 'cancelled', finished_at = moment, reason = 'dropped',
        prune_at = moment + greatest(coalesce(oldest.keep::bigint, 0), oldest.unique_hold, 60000)
    WHERE job.id = oldest.id;
    RETURN oldest.id;
END
$function$;
