-- The lines in some mailboxes. Parameters: workers, shift (of no use: a read without a clock)
-- Returns worker, kind, job, fence.
CREATE OR REPLACE FUNCTION {schema}.holdfast_mail(asking uuid[], shift bigint)
RETURNS TABLE (worker uuid, kind text, job uuid, fence bigint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
    RETURN QUERY
    SELECT flagged.worker, 'cancel', flagged.id, flagged.fence FROM {schema}.holdfast_jobs AS flagged
    WHERE flagged.cancel_fence IS NOT NULL AND flagged.cancel_fence = flagged.fence AND flagged.state = 'running'
    AND flagged.worker = ANY (asking)
    UNION ALL
    SELECT line.worker, line.kind, line.job, line.fence FROM {schema}.holdfast_mail AS line
    WHERE line.worker = ANY (asking);
END
$body$;
