-- The sums of two rows of numbers, one by one.
CREATE OR REPLACE FUNCTION {schema}.holdfast_sums(one bigint[], other bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT array_agg(coalesce(a, 0) + coalesce(b, 0) ORDER BY n)
    FROM unnest(one, other) WITH ORDINALITY AS pair (a, b, n)
$function$;
