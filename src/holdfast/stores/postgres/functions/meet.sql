-- Refuses a call that is meant for another store. `store`: the one that is meant; NULL: whichever this is.
CREATE OR REPLACE FUNCTION {schema}.holdfast_meet(store uuid) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM {schema}.holdfast_meta AS meta WHERE meta.store <> holdfast_meet.store;
    IF FOUND THEN
        RAISE EXCEPTION 'database % has other jobs than those of the store', current_database() USING ERRCODE = 'HF001';
    END IF;
END
$function$;
