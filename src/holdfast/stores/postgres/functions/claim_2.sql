-- Takes queued jobs for a worker: see Store.claim. A claim that finds nothing only reads.
-- Parameters: worker, ticket, queues (NULL: every queue), limit; the queues to look at first, and how many jobs of each
-- at most; shift
-- Returns per job what rows.claim_of reads; or one row that says only why it is refused; or none.
--
-- While an old transaction holds back vacuum, the entries of all jobs claimed meanwhile stay at the head of
-- holdfast_ready. Where a claim had to pass many of them, the worker's next ones begin at a floor, a little before
-- where this one ended: holdfast_workers.floors, a JSON object {queue: [~priority, due_at, until, soon]}. They look from
-- the very head from time to time, at least every two seconds: after `until`, and after `soon` where there was less
-- than asked for. What belongs before the floor waits that long. A floor that says it holds for longer than two seconds
-- is none: the clock was set back since.
CREATE OR REPLACE FUNCTION {schema}.holdfast_claim_2(
    claimer uuid, number bigint, queues text[], most bigint, firsts text[], shares bigint[], shift bigint
) RETURNS TABLE (
    id uuid, fence bigint, task text, queue text, payload bytea, terms text, priority integer, attempt integer,
    releases integer, losses integer, crashes integer, alone boolean, enqueued_at bigint, due_at bigint,
    started_at bigint, loss text, headers text, saved bytea, deadline_at bigint, refused text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    life record;
    locked boolean := false;
    wrapped boolean := false;
    served text[]; -- the queues that are asked for, in order
    stopped text[]; -- the queues that are paused
    nth bigint;
    share integer := 0; -- how many of `firsts` were looked at
    in_turn boolean; -- all of them
    chosen text; -- where the turn is
    target text; -- the queue that is looked at
    wanted bigint;
    edge text;
    first text;
    known jsonb; -- the worker's floors
    picked tid[];
    rows tid[];
BEGIN
    LOOP
        IF locked THEN -- this claim is before or behind the end of the worker's life now, and behind its own repeats
            SELECT worker.ticket, worker.turn, worker.retired_at, worker.lease_until, worker.floors INTO life
            FROM {schema}.holdfast_workers AS worker WHERE worker.id = claimer FOR NO KEY UPDATE;
        ELSE
            SELECT worker.ticket, worker.turn, worker.retired_at, worker.lease_until, worker.floors INTO life
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
            RETURN QUERY
            SELECT
                held.*,
                (SELECT job.deadline_at FROM {schema}.holdfast_jobs AS job WHERE job.id = held.id),
                NULL::text
            FROM {schema}.holdfast_held(claimer, number, NULL) AS held;
            IF NOT FOUND THEN
                refused := 'used';
                RETURN NEXT;
            END IF;
            RETURN;
        END IF;
        EXIT WHEN locked;

        served := ARRAY(SELECT DISTINCT one.queue COLLATE "C" FROM unnest(queues) AS one (queue) ORDER BY 1);
        stopped := ARRAY(
            SELECT pause.queue FROM {schema}.holdfast_pauses AS pause
            WHERE pause.until IS NULL OR pause.until > moment
        );
        nth := (SELECT count(*) FROM unnest(served) AS one (queue) WHERE one.queue COLLATE "C" <= life.turn);
        chosen := life.turn;
        known := coalesce(life.floors, '{}');
        WHILE coalesce(cardinality(rows), 0) < most LOOP
            wanted := most - coalesce(cardinality(rows), 0);
            in_turn := coalesce(share >= cardinality(firsts), true);
            IF NOT in_turn THEN
                share := share + 1;
                target := firsts[share];
                wanted := least(wanted, shares[share]);
            ELSE
                IF queues IS NOT NULL THEN
                    nth := nth + 1;
                    chosen := served[nth];
                ELSE
                    edge := (
                        SELECT min(one.queue COLLATE "C") FROM jsonb_each(known) AS one (queue, floor)
                        WHERE one.queue COLLATE "C" > chosen
                        AND (one.floor ->> 2)::bigint - moment BETWEEN 1 AND 2000
                    );
                    chosen := CASE WHEN edge IS NULL THEN (
                        SELECT job.queue FROM {schema}.holdfast_jobs AS job
                        WHERE job.state = 'queued' AND job.queue > chosen
                        ORDER BY job.queue
                        LIMIT 1
                    ) ELSE coalesce((
                        SELECT job.queue FROM {schema}.holdfast_jobs AS job
                        WHERE job.state = 'queued' AND job.queue > chosen AND job.queue < edge
                        ORDER BY job.queue
                        LIMIT 1
                    ), edge) END;
                END IF;
                IF chosen IS NULL AND NOT wrapped THEN
                    chosen := '';
                    nth := 0;
                    wrapped := true;
                    CONTINUE;
                END IF;
                EXIT WHEN chosen IS NULL OR wrapped AND chosen COLLATE "C" > life.turn;
                target := chosen;
            END IF;
            CONTINUE WHEN wanted <= 0 OR target = ANY (stopped);
            SELECT found.rows, found.floor INTO picked, edge
            FROM {schema}.holdfast_pick(
                target, wanted, known ->> target, moment,
                CASE WHEN firsts IS NULL OR rows IS NULL THEN '{}' ELSE rows END -- else no queue is looked at twice
            ) AS found;
            IF edge IS DISTINCT FROM known ->> target THEN
                known := CASE
                    WHEN edge IS NULL THEN known - target
                    ELSE known || jsonb_build_object(target, edge::jsonb)
                END;
            END IF;
            IF picked IS NOT NULL THEN
                rows := rows || picked;
                IF in_turn THEN
                    first := coalesce(first, target);
                END IF;
            END IF;
        END LOOP;
        IF rows IS NULL AND known = coalesce(life.floors, '{}') THEN
            RETURN;
        END IF;
        locked := true;
    END LOOP;

    IF rows IS NULL THEN
        UPDATE {schema}.holdfast_workers AS worker SET floors = nullif(known, '{}') WHERE worker.id = claimer;
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE {schema}.holdfast_jobs AS job
    SET
        state = 'running', attempt = job.attempt + 1, fence = job.fence + 1, worker = claimer, ticket = number,
        started_at = moment
    WHERE job.ctid = ANY (rows)
    RETURNING
        job.id, job.fence, job.task, job.queue, job.payload, job.terms, job.priority, job.attempt, job.releases,
        job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at, job.started_at, job.loss, job.headers,
        CASE WHEN job.fence > 1 THEN
            (SELECT kept.saved FROM {schema}.holdfast_saved AS kept WHERE kept.job = job.id)
        END,
        job.deadline_at,
        NULL::text;
    UPDATE {schema}.holdfast_workers AS worker
    SET ticket = number, turn = coalesce(first, life.turn), floors = nullif(known, '{}')
    WHERE worker.id = claimer;
END
$body$;
