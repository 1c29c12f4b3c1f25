-- Cancels jobs: what is not running ends now, of what runs the end is asked for.
-- Parameters: ids; a reason; how long what is over must stay, in ms; shift
-- Returns per id, in order: `finishing` where another transaction holds the job's row, which is then not touched.
-- A unique key that is held at the end is held on for its time, and the job is kept as long.
CREATE OR REPLACE FUNCTION {schema}.holdfast_cancel(ids uuid[], told text, tombstone bigint, shift bigint)
RETURNS TABLE (answer text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET standard_conforming_strings = on -- backslashes
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    ours uuid[];
    ended uuid[];
    left_queues text[];
BEGIN
    ours := ARRAY(
        SELECT job.id FROM {schema}.holdfast_jobs AS job
        WHERE job.id = ANY (ids) AND job.state NOT IN ('succeeded', 'dead', 'cancelled', 'deleted')
        ORDER BY job.id
        FOR NO KEY UPDATE SKIP LOCKED
    );
    RETURN QUERY
        SELECT CASE
            WHEN job.id IS NULL THEN 'missing'
            WHEN job.state IN ('succeeded', 'dead', 'cancelled') THEN 'final'
            WHEN mine.id IS NULL THEN 'finishing'
            WHEN job.state = 'running' THEN 'requested'
            WHEN asked.repeats > 1 THEN 'final'
            ELSE 'cancelled'
        END
        FROM (
            SELECT named.id, named.place, row_number() OVER (PARTITION BY named.id ORDER BY named.place) AS repeats
            FROM unnest(ids) WITH ORDINALITY AS named (id, place)
        ) AS asked
        LEFT JOIN {schema}.holdfast_jobs AS job
            ON job.id = asked.id AND job.id = ANY (ids) AND job.state <> 'deleted'
        LEFT JOIN unnest(ours) AS mine (id) ON mine.id = asked.id
        ORDER BY asked.place;
    UPDATE {schema}.holdfast_jobs AS job
    SET cancel_requested_at = moment, cancel_fence = job.fence, reason = told
    WHERE job.id = ANY (ours) AND job.state = 'running' AND job.cancel_requested_at IS NULL;
    WITH over AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET state = 'cancelled', finished_at = moment, reason = told, prune_at = moment + greatest(
            tombstone,
            -- Terms that cannot be read must not be in the way.
            coalesce(substring(job.terms FROM ',\s*(\d{1,16})\s*\]\s*$')::bigint, 0),
            CASE WHEN job.unique_until = 'finished' OR job.started_at IS NULL THEN job.unique_hold ELSE 0 END
        )
        WHERE job.id = ANY (ours) AND job.state <> 'running'
        RETURNING job.id, job.queue
    )
    SELECT array_agg(over.id), array_agg(over.queue) INTO ended, left_queues FROM over;
    IF ended IS NOT NULL THEN
        PERFORM {schema}.holdfast_tell(ended);
        PERFORM {schema}.holdfast_leave(left_queues);
    END IF;
END;
$function$;
