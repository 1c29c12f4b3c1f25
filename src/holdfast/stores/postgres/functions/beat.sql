-- Renews leases. Parameters: workers, shift
-- Returns the length of a lease, the time, and who of them has one.
CREATE OR REPLACE FUNCTION {schema}.holdfast_beat(beating uuid[], shift bigint)
RETURNS TABLE (length bigint, moment bigint, alive uuid[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET jit = off
AS $body$
BEGIN
    moment := {schema}.holdfast_now(shift);
    length := (SELECT meta.lease FROM {schema}.holdfast_meta AS meta);
    WITH living AS MATERIALIZED (
        SELECT worker.id FROM {schema}.holdfast_workers AS worker
        WHERE worker.id = ANY (beating) AND worker.retired_at IS NULL
        ORDER BY worker.id
        FOR NO KEY UPDATE
    ), written AS (
        UPDATE {schema}.holdfast_workers AS worker
        SET
            steady_since = CASE
                WHEN 2 * (moment - worker.beat_at) > length OR worker.beat_at > moment THEN moment
                ELSE worker.steady_since
            END,
            beat_at = moment,
            lease_until = moment + length
        FROM living WHERE worker.id = living.id
        RETURNING worker.id
    )
    SELECT coalesce(array_agg(written.id), '{}') INTO alive FROM written;
    RETURN NEXT;
END
$body$;
