-- Of these jobs, which have ended, those for whose end somebody waits: who asks tells them, and they are not in the
-- list any more.
CREATE OR REPLACE FUNCTION {schema}.holdfast_heard(ended uuid[]) RETURNS uuid[]
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
AS $function$
DECLARE
    heard uuid[];
BEGIN
    heard := ARRAY(
        SELECT watched.job FROM {schema}.holdfast_watched AS watched
        WHERE watched.job = ANY (ended)
        FOR UPDATE SKIP LOCKED
    );
    DELETE FROM {schema}.holdfast_watched AS watched WHERE watched.job = ANY (heard);
    RETURN heard;
END
$function$;
