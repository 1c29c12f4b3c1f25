-- Stores drafts on a connection of ours; parameters and receipts as for holdfast_put. Never waits for a stranger's
-- transaction: after `patience` ms for one id, key or queue the drafts are met one by one, and those that still hang on
-- one are `busy`. Who is kept waiting for the row of a bounded queue waits for what its holder waits for, so with one in
-- hand nearly nothing is waited for. Of reservations that are refused one place, none are kept.
CREATE OR REPLACE FUNCTION {schema}.holdfast_take(
    ids uuid[], kind integer[], payloads bytea[], kinds text, way text, patience integer, shift bigint
)
RETURNS TABLE (
    nth integer, answer text, created boolean, holder uuid, dropped uuid,
    depth bigint, bound bigint, when_full text, block_timeout bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    draft record;
    met record;
    refused boolean := false;
    held_up integer := 0;  -- drafts with a key that may have waited with the row of a queue in hand
    -- So many ms are waited with one at most; each call begins with others.
    held_up_most CONSTANT integer := 20;
    first integer := 1;
BEGIN
    PERFORM set_config('lock_timeout', patience || 'ms', true);
    BEGIN
        IF way <> 'reserve' THEN
            RETURN QUERY SELECT * FROM {schema}.holdfast_put(ids, kind, payloads, kinds::json, way, moment);
            RETURN;
        END IF;
        FOR met IN SELECT put.* FROM {schema}.holdfast_put(ids, kind, payloads, kinds::json, way, moment) AS put LOOP
            nth := met.nth;
            answer := met.answer;
            created := met.created;
            holder := met.holder;
            dropped := met.dropped;
            depth := met.depth;
            bound := met.bound;
            when_full := met.when_full;
            block_timeout := met.block_timeout;
            refused := refused OR answer = 'full';
            RETURN NEXT;
        END LOOP;
        IF refused THEN
            RAISE EXCEPTION USING ERRCODE = 'HF002';
        END IF;
        RETURN;
    EXCEPTION
        WHEN SQLSTATE 'HF002' THEN
            RETURN;
        -- (query_canceled: PostgreSQL calls it that where a lock is granted just as the time for it runs out. What comes
        -- late is somebody's wish, or statement_timeout.)
        WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
            IF SQLSTATE = '57014' AND clock_timestamp() > statement_timestamp() + interval '5 s' THEN
                RAISE;
            END IF;
            PERFORM set_config('lock_timeout', '1ms', true);  -- that was patience enough for one call
    END;
    IF cardinality(ids) > held_up_most AND EXISTS (
        SELECT 1 FROM {schema}.holdfast_queues AS queue WHERE queue.max_size IS NOT NULL
    ) THEN
        first := 1 + floor(random() * cardinality(ids))::integer;
    END IF;
    FOR draft IN
        SELECT each.n::integer AS n, each.id, each.payload, said.value
        FROM unnest(ids, kind, payloads) WITH ORDINALITY AS each (id, k, payload, n)
        JOIN json_array_elements(kinds::json) WITH ORDINALITY AS said (value, k) ON said.k = each.k
        ORDER BY each.n < first, each.n
    LOOP
        nth := draft.n;
        BEGIN
            IF held_up >= held_up_most AND draft.value ->> 'unique_key' IS NOT NULL THEN
                RAISE EXCEPTION USING ERRCODE = 'lock_not_available';
            END IF;
            SELECT
                receipt.answer, receipt.created, receipt.holder, receipt.dropped,
                receipt.depth, receipt.bound, receipt.when_full, receipt.block_timeout
            INTO answer, created, holder, dropped, depth, bound, when_full, block_timeout
            FROM {schema}.holdfast_admit(draft.id, draft.value, draft.payload, way, moment) AS receipt;
        EXCEPTION WHEN lock_not_available OR deadlock_detected OR query_canceled THEN
            IF SQLSTATE = '57014' AND clock_timestamp() > statement_timestamp() + interval '5 s' THEN
                RAISE;
            END IF;
            IF draft.value ->> 'unique_key' IS NOT NULL AND EXISTS (
                SELECT 1 FROM {schema}.holdfast_queues AS queue
                WHERE queue.name = draft.value ->> 'queue' AND queue.max_size IS NOT NULL
            ) THEN
                held_up := held_up + 1;
            END IF;
            answer := 'busy';
            created := false;
            holder := NULL;
            dropped := NULL;
            bound := NULL;
        END;
        RETURN NEXT;
    END LOOP;
END
$function$;
