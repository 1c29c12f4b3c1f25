-- Deletes workers that are over (retired an hour ago, or a day without a beat) and hold nothing. Parameter: now
CREATE OR REPLACE FUNCTION {schema}.holdfast_prune_workers(moment bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
BEGIN
    WITH picked AS MATERIALIZED (
        SELECT worker.id FROM {schema}.holdfast_workers AS worker
        WHERE coalesce(worker.retired_at <= moment - 3600000, worker.beat_at <= moment - 86400000)
        AND NOT EXISTS (
            SELECT FROM {schema}.holdfast_jobs AS job WHERE job.state = 'running' AND job.worker = worker.id
        )
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM {schema}.holdfast_workers AS worker USING picked WHERE worker.id = picked.id;
    IF FOUND THEN
        DELETE FROM {schema}.holdfast_mail AS line
        WHERE NOT EXISTS (SELECT FROM {schema}.holdfast_workers AS worker WHERE worker.id = line.worker);
    END IF;
END
$body$;
