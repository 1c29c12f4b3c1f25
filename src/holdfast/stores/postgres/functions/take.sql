-- Stores drafts on a connection of ours; parameters and receipts as for holdfast_put. Never waits for a stranger's
-- transaction: after `patience` ms for one id, key or queue the drafts are met one by one, and those that still hang on
-- one are `busy`.
CREATE OR REPLACE FUNCTION {schema}.holdfast_take(
    ids uuid[], kind integer[], payloads bytea[], kinds text, way text, patience integer, shift bigint
)
RETURNS TABLE (
    nth integer, answer text, created boolean, holder uuid, dropped uuid,
    depth bigint, bound bigint, when_full text, block_timeout bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    draft record;
BEGIN
    PERFORM set_config('lock_timeout', patience || 'ms', true);
    BEGIN
        RETURN QUERY SELECT * FROM {schema}.holdfast_put(ids, kind, payloads, kinds::json, way, moment);
        RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        PERFORM set_config('lock_timeout', '1ms', true);  -- that was patience enough for one call
    END;
    FOR draft IN
        SELECT each.n::integer AS n, each.id, each.payload, said.value
        FROM unnest(ids, kind, payloads) WITH ORDINALITY AS each (id, k, payload, n)
        JOIN json_array_elements(kinds::json) WITH ORDINALITY AS said (value, k) ON said.k = each.k
        ORDER BY each.n
    LOOP
        nth := draft.n;
        BEGIN
            SELECT
                receipt.answer, receipt.created, receipt.holder, receipt.dropped,
                receipt.depth, receipt.bound, receipt.when_full, receipt.block_timeout
            INTO answer, created, holder, dropped, depth, bound, when_full, block_timeout
            FROM {schema}.holdfast_admit(draft.id, draft.value, draft.payload, way, moment) AS receipt;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
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
