-- Gives places back: one for each entry of `queues`, in those that have a bound. Rows are locked in the order of names.
CREATE OR REPLACE FUNCTION {schema}.holdfast_leave(queues text[]) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    ended record;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM {schema}.holdfast_left) THEN
        RETURN;
    END IF;
    FOR ended IN
        SELECT entry.name, count(*) AS number FROM unnest(queues) AS entry (name) GROUP BY entry.name ORDER BY entry.name
    LOOP
        UPDATE {schema}.holdfast_left AS given SET places = given.places + ended.number WHERE given.queue = ended.name;
    END LOOP;
END
$function$;
