-- Takes a holder's jobs over, if its life is over still. Parameters: holder, sweeper, limit, now
-- Returns how many.
CREATE OR REPLACE FUNCTION {schema}.holdfast_take_over(holder uuid, sweeper uuid, most bigint, moment bigint)
RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    life record;
    taken bigint;
BEGIN
    SELECT worker.retired_at, worker.loss, worker.losses::jsonb AS losses INTO life
    FROM {schema}.holdfast_workers AS worker
    WHERE worker.id = holder AND worker.lease_until <= moment
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND AND EXISTS (SELECT FROM {schema}.holdfast_workers AS worker WHERE worker.id = holder) THEN
        RETURN 0;
    END IF;
    WITH picked AS MATERIALIZED (
        SELECT job.ctid, job.id, job.fence FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'running' AND job.worker = holder
        ORDER BY job.ticket
        LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET
            fence = job.fence + 1, worker = sweeper, ticket = NULL,
            loss = coalesce(
                job.loss, life.losses ->> (job.id || ':' || job.fence), life.loss, '["the worker''s lease ran out"]'
            )
        FROM picked WHERE job.ctid = picked.ctid
        RETURNING picked.id, picked.fence
    ), told AS (
        INSERT INTO {schema}.holdfast_mail (worker, job, fence, kind)
        SELECT holder, written.id, written.fence, 'lost' FROM written -- not all that was picked, see settle.sql
        WHERE life.retired_at IS NULL AND EXISTS (
            SELECT FROM {schema}.holdfast_workers AS worker WHERE worker.id = holder
        )
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) INTO taken FROM written;
    RETURN taken;
END
$body$;
