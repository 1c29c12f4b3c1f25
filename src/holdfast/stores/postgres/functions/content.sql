-- A digest of what makes a job what it is: two drafts of one id are the same job if these agree.
CREATE OR REPLACE FUNCTION {schema}.holdfast_content(task text, queue text, payload bytea) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$ SELECT encode(sha256(convert_to(task || chr(10) || queue || chr(10), 'UTF8') || payload), 'hex') $function$;
