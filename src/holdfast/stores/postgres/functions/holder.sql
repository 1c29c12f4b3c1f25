-- Who holds a unique key of a queue; nothing is locked. `id` is NULL if nobody does. `over`: it has ended and its time is
-- over, so that it holds the key only until another takes it. `alike`: it is of `task_name`. `open`: it was not started
-- in this life.
CREATE OR REPLACE FUNCTION {schema}.holdfast_holder(
    queue_name text, key text, task_name text, moment bigint,
    OUT id uuid, OUT over boolean, OUT alike boolean, OUT open boolean
)
LANGUAGE plpgsql
AS $function$
BEGIN
    SELECT
        job.id,
        job.finished_at IS NOT NULL AND job.finished_at + job.unique_hold <= moment,
        job.task = task_name,
        job.started_at IS NULL AND job.state IN ('queued', 'scheduled')
    INTO id, over, alike, open
    FROM {schema}.holdfast_jobs AS job
    WHERE job.queue = queue_name AND job.unique_key = key
    AND (job.unique_until = 'finished' OR job.started_at IS NULL)
    AND (
        job.state IN ('queued', 'running', 'scheduled', 'waiting')
        OR (job.unique_hold > 0 AND NOT job.unique_over AND job.state <> 'deleted')
    );
END
$function$;
