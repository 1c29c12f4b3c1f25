-- What is said of a queue, read: [max_size, when_full, block_timeout, weight] (code of version 1 says no weight: 1), or
-- NULL for what somebody's hand has made unreadable, which the next word of code or operator replaces.
CREATE OR REPLACE FUNCTION {schema}.holdfast_terms(said text) RETURNS jsonb
LANGUAGE plpgsql
AS $function$
DECLARE
    terms jsonb := said::jsonb;
BEGIN
    IF jsonb_typeof(terms) = 'array' AND jsonb_array_length(terms) IN (3, 4) AND terms ->> 1 IS NOT NULL
        AND (terms ->> 0)::bigint > 0 IS NOT FALSE AND (terms ->> 2)::bigint >= 0 IS NOT FALSE
        AND coalesce((terms ->> 3)::bigint, 1) > 0
    THEN
        RETURN terms;
    END IF;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$function$;
