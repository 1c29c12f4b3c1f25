-- Opens a worker's life; one that is there already beats. Parameters: id, supervisor, facts (JSON), shift
-- Returns the length of a lease, and the time.
CREATE OR REPLACE FUNCTION {schema}.holdfast_register(newcomer uuid, parent uuid, told text, shift bigint)
RETURNS TABLE (length bigint, moment bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $body$
BEGIN
    moment := {schema}.holdfast_now(shift);
    length := (SELECT meta.lease FROM {schema}.holdfast_meta AS meta);
    INSERT INTO {schema}.holdfast_workers (id, supervisor, facts, beat_at, steady_since, lease_until)
    VALUES (newcomer, parent, told, moment, moment, moment + length)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM {schema}.holdfast_beat(ARRAY[newcomer], shift);
    END IF;
    RETURN NEXT;
END
$body$;
