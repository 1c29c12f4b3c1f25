-- The door: stores jobs in the caller's transaction, for psql, triggers and other languages; and for our own clients on
-- a connection of their user's. One text parameter, JSON:
--
-- An array of jobs as `holdfast_drafted` reads them: [{"task": "shop.send", "args": [42]}, …]. Each is stored or not by
-- itself, and the receipts say so. The row of a bounded queue stays locked until the transaction ends.
-- An object is our clients': {"jobs": drafts with id and payload (hex), "declared": the bounded queues that the producer
-- declares, "store": which store it means, "shift": ms}; a draft may say "reserved". All are stored or none; places were reserved before, else the
-- answer is `unreserved`.
--
-- Returns a receipt for each job, in order: see holdfast.store.Receipt; depth, bound, when_full and block_timeout (ms)
-- are those of a queue that had no place. Under REPEATABLE READ or SERIALIZABLE what others have taken since the
-- transaction began is its own serialization error.
CREATE OR REPLACE FUNCTION {schema}.holdfast_enqueue(jobs text)
RETURNS TABLE (
    id uuid, answer text, created boolean, holder uuid, dropped uuid,
    depth bigint, bound bigint, when_full text, block_timeout bigint
)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
DECLARE
    call json := jobs::json;
    ours boolean := json_typeof(jobs::json) = 'object';
    moment bigint;
    way text := 'door';
    ids uuid[];
    drafts json[];
    payloads bytea[];
    got jsonb;
    undone boolean := false;
    undeclared text[];
BEGIN
    IF ours AND call -> 'jobs' IS NOT NULL THEN
        PERFORM {schema}.holdfast_meet((call ->> 'store')::uuid);
        way := 'within';
        IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
            -- (An older snapshot would not show what is declared now.)
            undeclared := ARRAY(
                SELECT said.name FROM json_array_elements_text(call -> 'declared') AS said (name)
                WHERE NOT EXISTS (SELECT 1 FROM {schema}.holdfast_queues AS queue WHERE queue.name = said.name)
            );
        END IF;
        SELECT
            array_agg((each.said ->> 'id')::uuid ORDER BY each.n), array_agg(each.said ORDER BY each.n),
            array_agg(decode(each.said ->> 'payload', 'hex') ORDER BY each.n)
        INTO ids, drafts, payloads
        FROM json_array_elements(call -> 'jobs') WITH ORDINALITY AS each (said, n);
    ELSIF json_typeof(call) = 'array' THEN
        SELECT
            array_agg(read.job_id ORDER BY each.n), array_agg(read.draft ORDER BY each.n),
            array_agg(read.body ORDER BY each.n)
        INTO ids, drafts, payloads
        FROM json_array_elements(call) WITH ORDINALITY AS each (said, n)
        CROSS JOIN LATERAL {schema}.holdfast_drafted(each.said) AS read;
    ELSE
        RAISE EXCEPTION 'holdfast_enqueue takes a JSON array of jobs such as [{"task": "shop.send", "args": [42]}]'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF ids IS NULL THEN
        RETURN;
    END IF;
    moment := {schema}.holdfast_now(coalesce((call ->> 'shift')::bigint, 0));

    IF undeclared && ARRAY(SELECT said ->> 'queue' FROM unnest(drafts) AS said) THEN
        RETURN QUERY
        SELECT
            draft.id, CASE WHEN draft.said ->> 'queue' = ANY (undeclared) THEN 'unreserved' ELSE 'accepted' END,
            false, NULL::uuid, NULL::uuid, NULL::bigint, NULL::bigint, NULL::text, NULL::bigint
        FROM unnest(ids, drafts) WITH ORDINALITY AS draft (id, said, n)
        ORDER BY draft.n;
        RETURN;
    END IF;

    BEGIN
        SELECT jsonb_agg(receipt) INTO got
        FROM {schema}.holdfast_put(
            ids, ARRAY(SELECT generate_series(1, cardinality(ids))), payloads, array_to_json(drafts), way, moment
        ) AS receipt;
        IF ours AND jsonb_path_exists(got, '$[*].answer ? (@ == "conflict" || @ == "taken" || @ == "full" || @ == "unreserved")')
        THEN
            RAISE EXCEPTION USING ERRCODE = 'HF002';
        END IF;
    EXCEPTION WHEN SQLSTATE 'HF002' THEN
        undone := true;
    END;

    IF NOT undone THEN
        PERFORM {schema}.holdfast_wake(array_agg(DISTINCT draft.said ->> 'queue'), moment)
        FROM unnest(drafts) WITH ORDINALITY AS draft (said, n)
        LEFT JOIN jsonb_to_recordset(got) AS receipt (nth integer, answer text, created boolean) ON receipt.nth = draft.n
        WHERE coalesce((draft.said ->> 'at')::bigint, moment + (draft.said ->> 'delay')::bigint) <= moment
            AND (receipt.nth IS NULL OR receipt.created OR receipt.answer = 'replaced')
        HAVING count(*) > 0;
    END IF;
    RETURN QUERY
    SELECT
        draft.id, coalesce(receipt.answer, 'accepted'), coalesce(receipt.created, true) AND NOT undone,
        receipt.holder, CASE WHEN NOT undone THEN receipt.dropped END,
        receipt.depth, receipt.bound, receipt.when_full, receipt.block_timeout
    FROM unnest(ids) WITH ORDINALITY AS draft (id, n)
    LEFT JOIN jsonb_to_recordset(got) AS receipt (
        nth integer, answer text, created boolean, holder uuid, dropped uuid,
        depth bigint, bound bigint, when_full text, block_timeout bigint
    ) ON receipt.nth = draft.n
    ORDER BY draft.n;
END
$function$;
