-- Everybody who holds jobs, found by leaps through the index, with what is known of them.
-- Returns id, lease_until (NULL: no such worker), retired_at.
CREATE OR REPLACE FUNCTION {schema}.holdfast_holders()
RETURNS TABLE (id uuid, lease_until bigint, retired_at bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
    LOOP
        id := (
            SELECT job.worker FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'running'
            AND job.worker > coalesce(holdfast_holders.id, '00000000-0000-0000-0000-000000000000')
            ORDER BY job.worker
            LIMIT 1
        );
        EXIT WHEN id IS NULL;
        SELECT worker.lease_until, worker.retired_at INTO lease_until, retired_at
        FROM {schema}.holdfast_workers AS worker WHERE worker.id = holdfast_holders.id;
        RETURN NEXT;
    END LOOP;
END
$body$;
