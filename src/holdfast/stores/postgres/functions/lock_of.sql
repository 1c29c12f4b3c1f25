-- The advisory lock of those who use the reservation of a job that their snapshot does not show.
CREATE OR REPLACE FUNCTION {schema}.holdfast_lock_of(job uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$ SELECT hashtextextended('holdfast_reservations ' || job, 0) $function$;
