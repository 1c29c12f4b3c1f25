-- What code of version 1 calls: holdfast_promote_2, without a word of what was ended.
CREATE OR REPLACE FUNCTION {schema}.holdfast_promote(most bigint, shift bigint)
RETURNS TABLE (moved bigint, next_in bigint, filled text[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $body$
BEGIN
    RETURN QUERY
    SELECT done.moved, done.next_in, done.filled FROM {schema}.holdfast_promote_2(most, shift) AS done;
END
$body$;
