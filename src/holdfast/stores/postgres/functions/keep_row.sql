-- Notes that the caller's transaction has the rows of these bounded queues in hand until it ends: what it enqueues to
-- them after that needs no reservation. Where a savepoint is rolled back, the note goes with the rows.
CREATE OR REPLACE FUNCTION {schema}.holdfast_keep_row(names text[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    kept text[] := coalesce(nullif(current_setting('holdfast.rows', true), '')::text[], '{}');
    channel text := {schema}.holdfast_channel();  -- another schema's queues may have the same names
BEGIN
    kept := kept || ARRAY(SELECT channel || ' ' || name FROM unnest(names) AS name WHERE channel || ' ' || name <> ALL (kept));
    PERFORM set_config('holdfast.rows', kept::text, true);
END
$function$;
