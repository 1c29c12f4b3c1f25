-- Pauses a queue. Parameters: queue; until when: an instant, or ms from now, or neither; why; shift
CREATE OR REPLACE FUNCTION {schema}.holdfast_pause(
    paused text, until_at bigint, until_in bigint, why text, shift bigint
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
BEGIN
    INSERT INTO {schema}.holdfast_pauses AS known (queue, since, until, reason)
    VALUES (paused, moment, coalesce(until_at, moment + until_in), why)
    ON CONFLICT (queue) DO UPDATE
    SET
        since = CASE WHEN known.until <= moment THEN moment ELSE known.since END, -- one that is over begins anew
        until = excluded.until, reason = excluded.reason;
END
$function$;
