-- Writes outcomes of any kind, for holdfast_finish: where a cancel was asked for, all but a success ends cancelled.
-- Parameters: the words of a call; outcomes, a JSON array of objects with the columns that are named below: `place`
-- says whose outcome it is, `flagged` whether it is for a job with a cancel asked for (NULL: for either), `result` is
-- in hexadecimal; now
-- Returns, of those whose word holds, what was written.
CREATE OR REPLACE FUNCTION {schema}.holdfast_settle(
    ids uuid[], fences bigint[], workers uuid[], outcomes text, moment bigint
) RETURNS TABLE (id uuid, queue text, place bigint, state text, ended text, final boolean)
LANGUAGE plpgsql VOLATILE
AS $body$
BEGIN
    RETURN QUERY
    WITH said AS MATERIALIZED (
        SELECT word.id, word.fence, word.worker, one.*
        FROM unnest(ids, fences, workers) WITH ORDINALITY AS word (id, fence, worker, place)
        JOIN json_to_recordset(outcomes::json) AS one (
            place bigint, flagged boolean, ended text, state text, attempt integer, releases integer, losses integer,
            crashes integer, alone boolean, keep bigint, delay bigint, result text, reason text,
            error_type text, error_message text, error_traceback text, fingerprint text
        ) USING (place)
    ), held AS MATERIALIZED (
        SELECT -- as in finish.sql
            mine.ctid AS row, mine.started_at, mine.attempt AS ran, mine.asked, said.*,
            mine.attempts + CASE WHEN said.ended = 'succeeded' THEN 0 ELSE 1 END AS number,
            CASE WHEN mine.asked AND said.ended <> 'succeeded' THEN coalesce(nullif(mine.reason, ''), said.reason)
                ELSE said.reason END AS told,
            said.state IN ('succeeded', 'dead', 'cancelled') AS final
        FROM said CROSS JOIN LATERAL (
            SELECT
                job.ctid, job.attempt, job.attempts, job.started_at, job.reason,
                job.cancel_requested_at IS NOT NULL AS asked
            FROM {schema}.holdfast_jobs AS job
            WHERE job.id = said.id AND job.fence = said.fence AND job.worker = said.worker
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS mine
    ), last AS MATERIALIZED (
        SELECT held.* FROM held WHERE coalesce(held.flagged, held.asked) = held.asked
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET
            state = last.state, attempt = last.attempt, releases = last.releases, losses = last.losses,
            crashes = last.crashes, alone = last.alone,
            due_at = CASE WHEN last.final THEN job.due_at ELSE coalesce(moment + last.delay, job.due_at) END,
            finished_at = CASE WHEN last.final THEN moment END,
            prune_at = CASE WHEN last.final THEN moment + CASE
                WHEN last.keep IS NULL THEN NULL
                WHEN job.unique_until = 'finished' THEN greatest(last.keep, job.unique_hold)
                ELSE last.keep
            END END,
            result = decode(last.result, 'hex'), reason = last.told, attempts = last.number,
            fingerprint = CASE WHEN last.state = 'dead' THEN nullif(last.fingerprint, '') END,
            settled_fence = last.fence, settled_by = last.worker, settled_state = last.state,
            worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
        FROM last WHERE job.ctid = last.row
        RETURNING job.id, job.queue, last.place, last.state, last.ended, last.final
    ), remembered AS (
        -- Of what is written, not of what was to be: a row that changed since this statement began is locked, but not
        -- found by the UPDATE, and its outcome is `busy`.
        INSERT INTO {schema}.holdfast_attempts (
            job, number, attempt, fence, worker, started_at, ended_at, ended, reason,
            error_type, error_message, error_traceback
        )
        SELECT
            last.id, last.number, last.ran, last.fence, last.worker, last.started_at, moment, last.ended, last.told,
            last.error_type, last.error_message, last.error_traceback
        FROM last JOIN written USING (place) WHERE last.ended <> 'succeeded'
    ), forgotten AS (
        DELETE FROM {schema}.holdfast_attempts AS old USING last JOIN written USING (place)
        WHERE old.job = last.id AND old.number = last.number - 18 -- ERRORS_FIRST are 2 and ERRORS_LAST 18, see job.py
        AND last.number > 20 AND last.ended <> 'succeeded'
    )
    SELECT written.* FROM written;
END
$body$;
