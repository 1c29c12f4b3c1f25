-- Takes over running jobs whose worker is gone: see Store.reclaim. Waits for nobody: what is locked is left for later.
-- Parameters: sweeper, limit, shift
-- Returns per job that the sweeper holds as such now what rows.claim_of reads.
CREATE OR REPLACE FUNCTION {schema}.holdfast_reclaim_2(sweeper uuid, most bigint, shift bigint) RETURNS TABLE (
    id uuid, fence bigint, task text, queue text, payload bytea, terms text, priority integer, attempt integer,
    releases integer, losses integer, crashes integer, alone boolean, enqueued_at bigint, due_at bigint,
    started_at bigint, loss text, headers text, saved bytea, deadline_at bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    length bigint := (SELECT meta.lease FROM {schema}.holdfast_meta AS meta);
    steady boolean;
    wanted bigint;
    holder record;
BEGIN
    SELECT
        worker.beat_at <= moment AND 2 * (moment - worker.beat_at) < length AND moment - worker.steady_since > length
    INTO steady
    FROM {schema}.holdfast_workers AS worker
    WHERE worker.id = sweeper AND worker.retired_at IS NULL AND worker.lease_until > moment;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF steady THEN
        PERFORM {schema}.holdfast_cut_leases(moment + length);
    END IF;
    wanted := most - (
        SELECT count(*) FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'running' AND job.worker = sweeper AND job.ticket IS NULL
    );
    IF wanted > 0 THEN
        FOR holder IN
            SELECT one.id FROM {schema}.holdfast_holders() AS one
            WHERE one.id <> sweeper
            AND (one.retired_at IS NOT NULL OR steady AND coalesce(one.lease_until <= moment, true))
            ORDER BY one.retired_at IS NULL
        LOOP
            wanted := wanted - {schema}.holdfast_take_over(holder.id, sweeper, wanted, moment);
            EXIT WHEN wanted <= 0;
        END LOOP;
    END IF;
    RETURN QUERY
    SELECT held.*, (SELECT job.deadline_at FROM {schema}.holdfast_jobs AS job WHERE job.id = held.id)
    FROM {schema}.holdfast_held(sweeper, NULL, greatest(0, most)) AS held;
END
$body$;
