-- Keeps what handlers say of their jobs. Takes no lock on a job's row.
-- Parameters: notes, a JSON array of [id, fence, worker, progress, text, [[age of a line in ms, line], …], saved in
-- base64], null: nothing new; how many lines of a log are kept; shift
-- Returns, in order, whether each word holds: the job runs under it. A word that settled the job, which nobody has
-- claimed since, is heard too, but saves nothing.
CREATE OR REPLACE FUNCTION {schema}.holdfast_note(notes text, log_most bigint, shift bigint)
RETURNS TABLE (runs boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    answers boolean[];
    spoken uuid[];
BEGIN
    WITH heard AS MATERIALIZED (
        SELECT note.place, note.said, job.id, job.fence, coalesce(job.state = 'running', false) AS holds
        FROM jsonb_array_elements(notes::jsonb) WITH ORDINALITY AS note (said, place)
        LEFT JOIN {schema}.holdfast_jobs AS job
            ON job.id = (note.said ->> 0)::uuid
            AND job.fence = (note.said ->> 1)::bigint
            AND (note.said ->> 2)::uuid = CASE
                WHEN job.state = 'running' THEN job.worker
                WHEN job.state <> 'deleted' AND job.settled_fence = job.fence THEN job.settled_by
            END
    ),
    shown AS (
        INSERT INTO {schema}.holdfast_notes AS known (job, fence, progress, text)
        SELECT
            heard.id, heard.fence,
            (array_agg((heard.said ->> 3)::double precision ORDER BY heard.place DESC)
                FILTER (WHERE heard.said ->> 3 IS NOT NULL))[1],
            (array_agg(heard.said ->> 4 ORDER BY heard.place DESC) FILTER (WHERE heard.said ->> 4 IS NOT NULL))[1]
        FROM heard
        WHERE heard.id IS NOT NULL AND (heard.said ->> 3 IS NOT NULL OR heard.said ->> 4 IS NOT NULL)
        GROUP BY heard.id, heard.fence
        ORDER BY heard.id
        ON CONFLICT (job) DO UPDATE
        SET
            progress = CASE WHEN known.fence = excluded.fence THEN coalesce(excluded.progress, known.progress)
                ELSE excluded.progress END,
            text = CASE WHEN known.fence = excluded.fence THEN coalesce(excluded.text, known.text)
                ELSE excluded.text END,
            fence = excluded.fence
        WHERE known.fence <= excluded.fence
    ),
    kept AS (
        INSERT INTO {schema}.holdfast_saved AS known (job, fence, saved)
        SELECT DISTINCT ON (heard.id) heard.id, heard.fence, decode(heard.said ->> 6, 'base64')
        FROM heard
        WHERE heard.holds AND heard.said ->> 6 IS NOT NULL
        ORDER BY heard.id, heard.place DESC
        ON CONFLICT (job) DO UPDATE SET saved = excluded.saved, fence = excluded.fence
        WHERE known.fence <= excluded.fence
    ),
    written AS (
        INSERT INTO {schema}.holdfast_log (job, at, fence, text)
        SELECT heard.id, moment - (line.told ->> 0)::bigint, heard.fence, line.told ->> 1
        FROM heard, jsonb_array_elements(heard.said -> 5) WITH ORDINALITY AS line (told, place)
        WHERE heard.id IS NOT NULL
        ORDER BY heard.place, line.place
    )
    SELECT
        array_agg(heard.holds ORDER BY heard.place),
        array_agg(DISTINCT heard.id) FILTER (WHERE heard.id IS NOT NULL AND jsonb_array_length(heard.said -> 5) > 0)
    INTO answers, spoken
    FROM heard;
    DELETE FROM {schema}.holdfast_log AS line
    USING unnest(spoken) AS one (job)
    WHERE line.job = one.job AND line.number <= (
        SELECT last.number FROM {schema}.holdfast_log AS last WHERE last.job = one.job
        ORDER BY last.number DESC OFFSET log_most LIMIT 1
    );
    RETURN QUERY SELECT unnest(answers);
END;
$function$;
