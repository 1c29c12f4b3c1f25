-- Deletes what is over of the history (minute by minute it is kept for a day, in steps of ten minutes for 30 days:
-- MINUTES_KEPT and TENS_KEPT of holdfast.store), pauses that are over, and who waited for jobs. Parameter: now
CREATE OR REPLACE FUNCTION {schema}.holdfast_prune_history(moment bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $body$
DECLARE
    tens_are boolean;
BEGIN
    FOREACH tens_are IN ARRAY ARRAY[false, true] LOOP
        DELETE FROM {schema}.holdfast_minutes AS old WHERE old.ctid = ANY (ARRAY(
            SELECT step.ctid FROM {schema}.holdfast_minutes AS step
            WHERE step.tens = tens_are AND step.start < moment - CASE WHEN tens_are THEN 2592000000 ELSE 86400000 END
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ));
        DELETE FROM {schema}.holdfast_levels AS old WHERE old.ctid = ANY (ARRAY(
            SELECT step.ctid FROM {schema}.holdfast_levels AS step
            WHERE step.tens = tens_are AND step.start < moment - CASE WHEN tens_are THEN 2592000000 ELSE 86400000 END
            LIMIT 1000
            FOR UPDATE SKIP LOCKED
        ));
    END LOOP;
    DELETE FROM {schema}.holdfast_pauses AS old WHERE old.ctid = ANY (ARRAY(
        SELECT pause.ctid FROM {schema}.holdfast_pauses AS pause WHERE pause.until <= moment FOR UPDATE SKIP LOCKED
    ));
    DELETE FROM {schema}.holdfast_watched AS old WHERE old.ctid = ANY (ARRAY(
        SELECT watched.ctid FROM {schema}.holdfast_watched AS watched
        -- (So far ahead: the clock was set back.)
        WHERE watched.until NOT BETWEEN moment AND moment + 86400000
        FOR UPDATE SKIP LOCKED
    ));
END
$body$;
