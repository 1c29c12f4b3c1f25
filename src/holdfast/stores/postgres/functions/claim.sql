-- Takes queued jobs for a worker: see Store.claim. An idle claim only reads.
-- Parameters: worker, ticket, queues (NULL: every queue), limit, shift
-- Returns per job what rows.claim_of reads; or one row that says only why it is refused; or none.
CREATE OR REPLACE FUNCTION {schema}.holdfast_claim(
    claimer uuid, number bigint, queues text[], most bigint, shift bigint
) RETURNS TABLE (
    id uuid, fence bigint, task text, queue text, payload bytea, terms text, priority integer, attempt integer,
    releases integer, losses integer, crashes integer, alone boolean, enqueued_at bigint, due_at bigint,
    started_at bigint, loss text, headers text, saved bytea, refused text
)
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
    moment bigint := {schema}.holdfast_now(shift);
    life record;
    filled boolean;
    wrapped boolean := false;
    chosen text;
    first text;
    wanted bigint := most;
    taken bigint;
BEGIN
    IF queues IS NULL THEN
        filled := EXISTS (SELECT FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued');
    ELSE
        filled := EXISTS (
            SELECT FROM unnest(queues) AS one (queue)
            WHERE EXISTS (
                SELECT FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued' AND job.queue = one.queue
            )
        );
    END IF;
    -- The lock puts this claim before or behind the end of the worker's life; and a repeat of it behind it.
    IF filled THEN
        SELECT worker.ticket, worker.turn, worker.retired_at, worker.lease_until INTO life
        FROM {schema}.holdfast_workers AS worker WHERE worker.id = claimer FOR NO KEY UPDATE;
    ELSE
        SELECT worker.ticket, worker.turn, worker.retired_at, worker.lease_until INTO life
        FROM {schema}.holdfast_workers AS worker WHERE worker.id = claimer;
    END IF;
    refused := CASE
        WHEN life.ticket IS NULL OR life.retired_at IS NOT NULL THEN 'gone'
        WHEN life.lease_until <= moment THEN 'expired'
        WHEN number <> life.ticket AND number <> life.ticket + 1 THEN 'ticket'
    END;
    IF refused IS NOT NULL THEN
        RETURN NEXT;
        RETURN;
    END IF;
    IF number = life.ticket THEN
        RETURN QUERY SELECT held.*, NULL::text FROM {schema}.holdfast_held(claimer, number, NULL) AS held;
        IF NOT FOUND THEN
            refused := 'used';
            RETURN NEXT;
        END IF;
        RETURN;
    END IF;
    IF NOT filled THEN
        RETURN;
    END IF;
    chosen := life.turn;
    WHILE wanted > 0 LOOP
        IF queues IS NULL THEN
            chosen := (
                SELECT job.queue FROM {schema}.holdfast_jobs AS job
                WHERE job.state = 'queued' AND job.queue > chosen
                ORDER BY job.queue
                LIMIT 1
            );
        ELSE
            chosen := (SELECT min(one.queue COLLATE "C") FROM unnest(queues) AS one (queue) WHERE one.queue COLLATE "C" > chosen);
        END IF;
        IF chosen IS NULL AND NOT wrapped THEN
            chosen := '';
            wrapped := true;
            CONTINUE;
        END IF;
        EXIT WHEN chosen IS NULL OR wrapped AND chosen COLLATE "C" > life.turn;
        RETURN QUERY
        WITH picked AS MATERIALIZED ( -- a fence: without it the planner may look twice, and take more than the limit
            SELECT job.ctid FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'queued' AND job.queue = chosen
            ORDER BY job.priority DESC, job.due_at, job.id
            LIMIT wanted
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE {schema}.holdfast_jobs AS job
        SET
            state = 'running', attempt = job.attempt + 1, fence = job.fence + 1, worker = claimer, ticket = number,
            started_at = moment
        FROM picked WHERE job.ctid = picked.ctid
        RETURNING
            job.id, job.fence, job.task, job.queue, job.payload, job.terms, job.priority, job.attempt, job.releases,
            job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at, job.started_at, job.loss, job.headers,
            CASE WHEN job.fence > 1 THEN
                (SELECT kept.saved FROM {schema}.holdfast_saved AS kept WHERE kept.job = job.id)
            END,
            NULL::text;
        GET DIAGNOSTICS taken = ROW_COUNT;
        wanted := wanted - taken;
        IF taken > 0 THEN
            first := coalesce(first, chosen);
        END IF;
    END LOOP;
    IF first IS NOT NULL THEN
        UPDATE {schema}.holdfast_workers AS worker SET ticket = number, turn = first WHERE worker.id = claimer;
    END IF;
END
$body$;
