-- Whether the caller's transaction has the row of this queue in hand: see holdfast_keep_row.
CREATE OR REPLACE FUNCTION {schema}.holdfast_keeps_row(name text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    RETURN {schema}.holdfast_channel() || ' ' || name
        = ANY (coalesce(nullif(current_setting('holdfast.rows', true), '')::text[], '{}'));
END
$function$;
