-- Cuts leases that end later than they can: the clock was stepped back. Parameter: now + lease
CREATE OR REPLACE FUNCTION {schema}.holdfast_cut_leases(latest bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $body$
BEGIN
    WITH ahead AS MATERIALIZED (
        SELECT worker.id FROM {schema}.holdfast_workers AS worker
        WHERE worker.retired_at IS NULL AND worker.lease_until > latest
        ORDER BY worker.id
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE {schema}.holdfast_workers AS worker SET lease_until = latest FROM ahead WHERE worker.id = ahead.id;
END
$body$;
