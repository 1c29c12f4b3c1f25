-- A length of time as people write it, in ms: seconds as a number, or a text such as "90s", "5m", "2h", "7d".
CREATE OR REPLACE FUNCTION {schema}.holdfast_span(said json, field text, fallback bigint) RETURNS bigint
LANGUAGE plpgsql
SET standard_conforming_strings = on -- backslashes
AS $function$
DECLARE
    text text := said #>> '{}';
    parts text[];
    length numeric;
BEGIN
    IF text IS NULL THEN
        RETURN fallback;
    END IF;
    parts := regexp_match(text, '^\s*(\d{1,15}(?:\.\d{1,9})?)\s*(ms|s|m|min|h|d)\s*$');
    IF json_typeof(said) = 'number' AND text ~ '^[0-9]{1,15}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?$' THEN
        length := ceil(text::numeric * 1000);
    ELSIF json_typeof(said) = 'string' AND parts IS NOT NULL THEN
        length := round(parts[1]::numeric * CASE parts[2]
            WHEN 'ms' THEN 1 WHEN 's' THEN 1000 WHEN 'h' THEN 3600000 WHEN 'd' THEN 86400000 ELSE 60000 END);
    END IF;
    IF length IS NULL OR length > 3153600000000 THEN
        RAISE EXCEPTION '%: % is no length of time; give seconds (30), "90s", "5m", "2h" or "7d", up to 36500d',
            field, left(said::text, 100)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN length::bigint;
END
$function$;
