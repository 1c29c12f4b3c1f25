-- Ends a queue's pause. Returns whether it was paused.
CREATE OR REPLACE FUNCTION {schema}.holdfast_resume(paused text, shift bigint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
DECLARE
    gone record;
BEGIN
    DELETE FROM {schema}.holdfast_pauses AS pause WHERE pause.queue = paused
    RETURNING coalesce(pause.until > {schema}.holdfast_now(shift), true) AS held INTO gone;
    RETURN coalesce(gone.held, false);
END
$function$;
