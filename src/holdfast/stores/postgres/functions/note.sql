-- Keeps what handlers say of their jobs. Takes no lock on a job's row.
-- Parameters: notes, a JSON array of [id, fence, worker, progress, text, [[age of the line in ms, line], …], saved as
-- base64], null: nothing new; how many lines of a log are kept; shift
-- Returns, in order, whether each word holds: the job runs under it. A word that settled the job, and nobody has had
-- it since, is heard too, but saves nothing.
CREATE OR REPLACE FUNCTION {schema}.holdfast_note(notes text, log_most bigint, shift bigint)
RETURNS TABLE (runs boolean)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    said record;
    words uuid[];
    held boolean[];
BEGIN
    SELECT
        array_agg(CASE WHEN job.state IS NOT NULL THEN word.id END ORDER BY word.place),
        array_agg(job.state IS NOT NULL AND job.state = 'running' ORDER BY word.place)
    INTO words, held
    FROM (
        SELECT
            note.place, (note.said ->> 0)::uuid AS id, (note.said ->> 1)::bigint AS fence,
            (note.said ->> 2)::uuid AS worker
        FROM json_array_elements(notes::json) WITH ORDINALITY AS note (said, place)
    ) AS word
    LEFT JOIN {schema}.holdfast_jobs AS job ON job.id = word.id AND job.fence = word.fence AND word.worker = CASE
        WHEN job.state = 'running' THEN job.worker
        WHEN job.state <> 'deleted' AND job.settled_fence = job.fence THEN job.settled_by
    END;
END;
$$;
