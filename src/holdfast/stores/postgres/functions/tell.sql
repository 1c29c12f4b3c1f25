-- Has the caller's transaction tell those who wait for these jobs, when it commits, that they have ended or are gone. It
-- does not where `SET holdfast.notify = off` was said: they look by themselves.
CREATE OR REPLACE FUNCTION {schema}.holdfast_tell(ended uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
BEGIN
    IF EXISTS (SELECT FROM {schema}.holdfast_watched)
        AND coalesce(nullif(current_setting('holdfast.notify', true), '')::boolean, true)
    THEN
        PERFORM pg_notify({schema}.holdfast_channel(), '!' || heard) FROM unnest({schema}.holdfast_heard(ended)) AS heard;
    END IF;
END
$function$;
