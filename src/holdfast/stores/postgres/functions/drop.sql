-- Ends a job that holdfast_oldest has locked, as cancelled with the reason "dropped"; another takes its place.
CREATE OR REPLACE FUNCTION {schema}.holdfast_drop(oldest uuid, moment bigint) RETURNS void
LANGUAGE plpgsql
SET standard_conforming_strings = on -- backslashes
AS $function$
DECLARE
    queue_name text;
BEGIN
    UPDATE {schema}.holdfast_jobs AS job
    SET
        state = 'cancelled', finished_at = moment, reason = 'dropped',
        prune_at = moment + greatest(
            coalesce(substring(job.terms FROM '([0-9]{1,15})[^0-9]*$')::bigint, 0), job.unique_hold,
            {schema}.holdfast_tombstone()
        )
    WHERE job.id = oldest
    RETURNING job.queue INTO queue_name;
    UPDATE {schema}.holdfast_queues AS queue SET dropped = queue.dropped + 1 WHERE queue.name = queue_name;
    PERFORM {schema}.holdfast_tell(ARRAY[oldest]);
END
$function$;
