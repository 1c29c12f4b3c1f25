-- Deletes schedules that have just these revisions. Parameters: names, revisions, shift (of no use)
-- Returns the names of those that it deleted.
CREATE OR REPLACE FUNCTION {schema}.holdfast_unschedule(names text[], revisions bigint[], shift bigint)
RETURNS TABLE (gone text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    said record;
BEGIN
    FOR said IN
        SELECT one.name, one.revision FROM unnest(names, revisions) AS one (name, revision) ORDER BY one.name COLLATE "C"
    LOOP
        DELETE FROM {schema}.holdfast_schedules AS known
        WHERE known.name = said.name AND known.revision = said.revision
        RETURNING known.name INTO gone;
        IF FOUND THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$function$;
