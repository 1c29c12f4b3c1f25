-- The name of the channel on which it is rung when jobs are queued: holdfast_<schema>, hashed where that is too long.
-- The payload of a notification is a queue's name, or ! and the id of a job that has ended.
CREATE OR REPLACE FUNCTION {schema}.holdfast_channel(shift bigint DEFAULT 0) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
    SELECT 'holdfast_' || CASE WHEN octet_length(name) <= 54 THEN name ELSE md5(name) END
    FROM (SELECT (parse_ident($name${schema}$name$))[1] AS name) AS schema
$function$;
