-- Settles one tick of a schedule: see Store.tick. Its row comes first, and is not waited for; then the draft is stored as
-- every other one.
-- Parameters: the schedule's name; its revision and its next tick, as they were read; the tick; the one after it; how
-- many were passed over, and why; the job's id, the JSON array of its draft as holdfast_put takes it, and its payload
-- (NULL: there is no draft); the draft's queue; how long another transaction is waited for, in ms; how many ticks are kept
-- of a schedule; shift
-- Returns what became of it, as Ticked says it, and whether its queue has a job more now that is due; no row if nothing
-- was written.
CREATE OR REPLACE FUNCTION {schema}.holdfast_tick(
    schedule_name text, seen bigint, awaited bigint, tick bigint, following bigint, passed bigint, why text,
    job_id uuid, kinds text, body bytea, job_queue text, patience integer, ticks_most integer, shift bigint
) RETURNS TABLE (due bigint, at bigint, outcome text, job uuid, reason text, count bigint, filled boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    told jsonb;
    receipt record;
BEGIN
    SELECT entry.ticks INTO told FROM {schema}.holdfast_schedules AS entry
    WHERE entry.name = schedule_name AND entry.revision = seen AND entry.next_at = awaited
        AND (entry.paused_since IS NULL OR entry.paused_until <= moment)
        AND (job_id IS NULL OR entry.queue = job_queue)
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    due := awaited;
    at := moment;
    outcome := 'missed';
    reason := why;
    count := passed;
    filled := false;
    IF passed > 0 THEN
        told := told || jsonb_build_array(jsonb_build_array(due, at, outcome, job, reason, count));
    END IF;
    IF job_id IS NOT NULL THEN
        BEGIN
            PERFORM set_config('lock_timeout', patience || 'ms', true);
            SELECT put.answer, put.created, put.holder INTO receipt
            FROM {schema}.holdfast_put(ARRAY[job_id], ARRAY[1], ARRAY[body], kinds::json, 'own', moment) AS put;
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
            -- (query_canceled: as in holdfast_take.)
            IF SQLSTATE = '57014' AND clock_timestamp() > statement_timestamp() + interval '5 s' THEN
                RAISE;
            END IF;
            RETURN; -- it is busy
        END;
        due := tick;
        count := 1;
        IF coalesce(receipt.answer, 'accepted') = 'accepted' THEN
            outcome := 'made';
            job := job_id;
            reason := '';
        ELSE
            outcome := 'skipped';
            job := receipt.holder;
            reason := receipt.answer;
        END IF;
        filled := reason = 'replaced' OR coalesce(receipt.created, true) AND outcome = 'made';
        told := told || jsonb_build_array(jsonb_build_array(due, at, outcome, job, reason, count));
    END IF;
    WHILE jsonb_array_length(told) > ticks_most LOOP
        told := told - 0;
    END LOOP;
    UPDATE {schema}.holdfast_schedules AS entry
    SET
        revision = entry.revision + 1, next_at = following, ticks = told, missed = entry.missed + passed,
        made = entry.made + CASE WHEN outcome = 'made' THEN 1 ELSE 0 END,
        skipped = entry.skipped + CASE WHEN outcome = 'skipped' THEN 1 ELSE 0 END
    WHERE entry.name = schedule_name;
    RETURN NEXT;
END
$function$;
