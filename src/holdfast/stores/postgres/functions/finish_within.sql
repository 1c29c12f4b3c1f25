-- Writes one success in the caller's own transaction: the job's row and nothing else, so that nobody but who asks about
-- this very job is held up by it. What else follows comes with the next finish under the same word.
--
-- `outcome`: a JSON object of store (null: whichever this is), shift, id, fence, worker, result (base64), keep (null:
-- for good), attempt, releases, losses, crashes, alone. Returns the answer, and the state as recorded.
--
-- It waits for whoever has the row locked, but not for long: that may be another transaction of the same handler.
CREATE OR REPLACE FUNCTION {schema}.holdfast_finish_within(outcome text, OUT answer text, OUT state text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
DECLARE
    done record;
    job record;
    moment bigint;
BEGIN
    SELECT * INTO STRICT done FROM json_to_record(outcome::json) AS said (
        store uuid, shift bigint, id uuid, fence bigint, worker uuid, result text, keep bigint,
        attempt integer, releases integer, losses integer, crashes integer, alone boolean
    );
    PERFORM {schema}.holdfast_meet(done.store);
    FOR pause IN 1..100 LOOP
        SELECT * INTO job FROM {schema}.holdfast_jobs AS held WHERE held.id = done.id FOR NO KEY UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        PERFORM FROM {schema}.holdfast_jobs AS held WHERE held.id = done.id;
        IF NOT FOUND THEN
            answer := 'gone';
            RETURN;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    IF job.id IS NULL THEN
        answer := 'busy';
    ELSIF job.state = 'running' AND job.fence = done.fence AND job.worker = done.worker THEN
        moment := {schema}.holdfast_now(done.shift);
        UPDATE {schema}.holdfast_jobs AS held
        SET
            state = 'succeeded', finished_at = moment, result = decode(done.result, 'base64'), reason = '',
            prune_at = CASE
                WHEN done.keep IS NOT NULL THEN moment + greatest(
                    done.keep, CASE WHEN held.unique_until = 'finished' THEN held.unique_hold ELSE 0 END
                )
            END,
            attempt = done.attempt, releases = done.releases, losses = done.losses, crashes = done.crashes,
            alone = done.alone,
            settled_fence = held.fence, settled_by = held.worker, settled_state = 'succeeded', within = true,
            worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
        WHERE held.id = done.id;
        answer := 'accepted';
        state := 'succeeded';
    ELSIF job.settled_fence = done.fence AND job.settled_by = done.worker THEN
        answer := 'replayed';
        state := job.settled_state;
    ELSE
        answer := CASE WHEN job.state = 'deleted' THEN 'gone' ELSE 'stale' END;
    END IF;
END
$function$;
