-- What code of version 1 calls: holdfast_look, without a word of what is paused.
CREATE OR REPLACE FUNCTION {schema}.holdfast_any_queued(queues text[], shift bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
BEGIN
    RETURN (SELECT look.queued FROM {schema}.holdfast_look(queues, shift) AS look);
END
$function$;
