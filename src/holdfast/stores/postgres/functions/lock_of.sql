-- The advisory lock of those who use the reservation of a job that their snapshot does not show: one of 256, since all
-- locks of a server stand in one table, and a transaction may use any number of reservations.
CREATE OR REPLACE FUNCTION {schema}.holdfast_lock_of(job uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT hashtextextended('holdfast_reservations ' || (hashtextextended(job::text, 0) & 255), 0)
$function$;
