-- How long a job that is over is recognised at least, in ms: holdfast.job.TOMBSTONE.
CREATE OR REPLACE FUNCTION {schema}.holdfast_tombstone() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$ SELECT 60000::bigint $function$;
