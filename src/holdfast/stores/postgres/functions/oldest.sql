-- Finds, and locks, the job that a queue drops next: the oldest that was not started in this life. One that is just
-- being claimed is passed over. Returns its id, or NULL if there is none.
CREATE OR REPLACE FUNCTION {schema}.holdfast_oldest(queue_name text) RETURNS uuid
LANGUAGE plpgsql
AS $function$
DECLARE
    oldest uuid;
BEGIN
    SELECT job.id INTO oldest FROM {schema}.holdfast_jobs AS job
    WHERE job.queue = queue_name AND job.started_at IS NULL AND job.state IN ('queued', 'scheduled')
    ORDER BY job.enqueued_at, job.id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED;
    RETURN oldest;
END
$function$;
