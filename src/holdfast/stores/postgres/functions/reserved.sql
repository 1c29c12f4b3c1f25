-- How long a place is kept for a caller's transaction, in ms: holdfast.store.RESERVED.
CREATE OR REPLACE FUNCTION {schema}.holdfast_reserved() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$ SELECT 60000::bigint $function$;
