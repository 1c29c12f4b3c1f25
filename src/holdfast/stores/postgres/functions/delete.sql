-- Leaves of jobs only what recognises them, and nothing of what belongs to them.
-- Parameters: ids; how long what is left stays after the job's end, in ms; shift
-- Returns per id, in order: `busy` where another transaction holds the job's row, which is then not touched.
CREATE OR REPLACE FUNCTION {schema}.holdfast_delete(ids uuid[], tombstone bigint, shift bigint)
RETURNS TABLE (answer text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    ours uuid[];
    ended text[];
BEGIN
    ours := ARRAY(
        SELECT job.id FROM {schema}.holdfast_jobs AS job
        WHERE job.id = ANY (ids) AND job.state NOT IN ('running', 'deleted')
        ORDER BY job.id
        FOR NO KEY UPDATE SKIP LOCKED
    );
    RETURN QUERY
        SELECT CASE
            WHEN job.id IS NULL THEN 'missing'
            WHEN job.state = 'running' THEN 'running'
            WHEN mine.id IS NULL THEN 'busy'
            WHEN asked.repeats > 1 THEN 'missing'
            ELSE 'deleted'
        END
        FROM (
            SELECT named.id, named.place, row_number() OVER (PARTITION BY named.id ORDER BY named.place) AS repeats
            FROM unnest(ids) WITH ORDINALITY AS named (id, place)
        ) AS asked
        LEFT JOIN {schema}.holdfast_jobs AS job
            ON job.id = asked.id AND job.id = ANY (ids) AND job.state <> 'deleted'
        LEFT JOIN unnest(ours) AS mine (id) ON mine.id = asked.id
        ORDER BY asked.place;
    ended := ARRAY(
        SELECT job.queue FROM {schema}.holdfast_jobs AS job
        WHERE job.id = ANY (ours) AND (job.within OR job.state NOT IN ('succeeded', 'dead', 'cancelled'))
    );
    UPDATE {schema}.holdfast_jobs AS job
    SET
        state = 'deleted', finished_at = coalesce(job.finished_at, moment),
        prune_at = coalesce(job.finished_at, moment) + tombstone,
        unique_key = NULL, headers = '', tags = '{}', reason = '', result = NULL, attempts = 0,
        within = false, expires_at = NULL, deadline_at = NULL, fingerprint = NULL
    WHERE job.id = ANY (ours);
    DELETE FROM {schema}.holdfast_attempts AS ended_once WHERE ended_once.job = ANY (ours);
    DELETE FROM {schema}.holdfast_notes AS note WHERE note.job = ANY (ours);
    DELETE FROM {schema}.holdfast_saved AS kept WHERE kept.job = ANY (ours);
    DELETE FROM {schema}.holdfast_log AS line WHERE line.job = ANY (ours);
    PERFORM {schema}.holdfast_tell(ours);
    IF cardinality(ended) > 0 THEN
        PERFORM {schema}.holdfast_leave(ended);
    END IF;
END;
$function$;
