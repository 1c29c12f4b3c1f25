-- Counts the places of a queue anew; its row must be locked by the caller. Returns how many are taken.
--
-- What is given back is counted in the same snapshot as the jobs: both change in one commit, so nobody who finishes is
-- waited for. A job that was let in by a transaction which did not see the bound yet is counted once that has ended:
-- until then (`unsettled`) the count is repeated by all who ask for a place.
CREATE OR REPLACE FUNCTION {schema}.holdfast_recount(queue_name text, moment bigint) RETURNS bigint
LANGUAGE plpgsql
AS $function$
DECLARE
    taken bigint;
    given bigint;
    horizon xid8;
    future xid8;
BEGIN
    PERFORM {schema}.holdfast_expire(queue_name, moment);
    SELECT
        -- One index for each, whatever the planner believes of the queue; `within`: the end is written, the place taken.
        (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'scheduled' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'running' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.within AND job.queue = queue_name)
        + (
            SELECT count(*) FROM {schema}.holdfast_reservations AS place
            WHERE place.queue = queue_name
            AND NOT EXISTS (SELECT 1 FROM {schema}.holdfast_jobs AS job WHERE job.id = place.job)
        ),
        coalesce((SELECT gone.places FROM {schema}.holdfast_left AS gone WHERE gone.queue = queue_name), 0),
        pg_snapshot_xmin(pg_current_snapshot()),
        pg_snapshot_xmax(pg_current_snapshot())
    INTO taken, given, horizon, future;
    UPDATE {schema}.holdfast_queues AS queue
    SET
        admitted = taken + given,
        counted_at = moment,
        unsettled = CASE
            WHEN queue.unsettled = '18446744073709551615'::xid8 THEN future
            WHEN queue.unsettled <= horizon THEN NULL
            ELSE queue.unsettled
        END
    WHERE queue.name = queue_name;
    RETURN taken;
END
$function$;
