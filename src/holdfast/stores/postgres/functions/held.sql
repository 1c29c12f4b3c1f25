-- The jobs that a worker holds under a ticket, in no order; under NULL: those that it took over as a sweeper.
-- Parameters: worker, ticket, limit (NULL: none)
-- Returns per job what rows.claim_of reads.
CREATE OR REPLACE FUNCTION {schema}.holdfast_held(holder uuid, number bigint, most bigint) RETURNS TABLE (
    id uuid, fence bigint, task text, queue text, payload bytea, terms text, priority integer, attempt integer,
    releases integer, losses integer, crashes integer, alone boolean, enqueued_at bigint, due_at bigint,
    started_at bigint, loss text, headers text, saved bytea
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
    IF number IS NULL THEN -- two statements, since an index finds no IS NOT DISTINCT FROM
        RETURN QUERY
        SELECT
            job.id, job.fence, job.task, job.queue, job.payload, job.terms, job.priority, job.attempt, job.releases,
            job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at, job.started_at, job.loss, job.headers,
            (SELECT kept.saved FROM {schema}.holdfast_saved AS kept WHERE kept.job = job.id)
        FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'running' AND job.worker = holder AND job.ticket IS NULL
        LIMIT most;
    ELSE
        RETURN QUERY
        SELECT
            job.id, job.fence, job.task, job.queue, job.payload, job.terms, job.priority, job.attempt, job.releases,
            job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at, job.started_at, job.loss, job.headers,
            (SELECT kept.saved FROM {schema}.holdfast_saved AS kept WHERE kept.job = job.id)
        FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'running' AND job.worker = holder AND job.ticket = number
        LIMIT most;
    END IF;
END
$body$;
