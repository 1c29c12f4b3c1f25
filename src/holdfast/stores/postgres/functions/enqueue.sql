-- The door: stores jobs in the caller's transaction, for psql, triggers and other languages; and for our own clients on
-- a connection of their user's. One text parameter, JSON:
--
-- An array of jobs as `holdfast_drafted` reads them: [{"task": "shop.send", "args": [42]}, …]. Each is stored or not by
-- itself, and the receipts say so. The row of a bounded queue stays locked until the transaction ends.
-- An object is our clients': {"jobs": drafts with id and payload (hex), "declared": the bounded queues that the producer
-- declares, "store": which store it means, "shift": ms}. All are stored or none. Places were reserved before, else
-- the answer is `unreserved`, unless the door was used for that queue in this transaction, which has its row then.
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
SET search_path = pg_catalog, pg_temp -- not the caller's
SET standard_conforming_strings = on -- backslashes
SET enable_seqscan = off
AS $function$
DECLARE
    call json;
    ours boolean;
    one json;
    nth integer := 0;  -- the job that is being read
    number integer;
    drawn record;
    told text;
    spot text;
    moment bigint;
    way text := 'door';
    ids uuid[];
    drafts json[];
    payloads bytea[];
    got jsonb;
    undone boolean := false;
    undeclared text[];
BEGIN
    BEGIN
        IF position('\u0000' IN jobs) > 0 AND jobs ~ '(^|[^\\])(\\\\)*\\u0000' THEN
            RAISE EXCEPTION 'a text holds \u0000, which PostgreSQL''s JSON cannot: %',
                substring(jobs FROM greatest(1, position('\u0000' IN jobs) - 60) FOR 70)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        call := jobs::json;
        ours := json_typeof(call) = 'object';
        IF json_typeof(call) = 'array' THEN
            number := json_array_length(call);
            FOR one IN SELECT json_array_elements(call) LOOP
                nth := nth + 1;
                drawn := {schema}.holdfast_drafted(one);
                ids[nth] := drawn.job_id;
                drafts[nth] := drawn.draft;
                payloads[nth] := drawn.body;
            END LOOP;
            nth := 0;
        END IF;
    EXCEPTION WHEN data_exception THEN
        GET STACKED DIAGNOSTICS told = MESSAGE_TEXT, spot = PG_EXCEPTION_CONTEXT;
        spot := substring(spot FROM '^JSON data, [^\n]*');
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = CASE WHEN number > 1 AND nth > 0 THEN format('job %s of %s: ', nth, number) ELSE '' END
                || told || coalesce(' (' || spot || ')', '');
    END;
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
            array_agg((each.said ->> 'id')::uuid ORDER BY each.n),
            array_agg((each.said::jsonb - 'payload')::json ORDER BY each.n),
            array_agg(decode(each.said ->> 'payload', 'hex') ORDER BY each.n)
        INTO ids, drafts, payloads
        FROM json_array_elements(call -> 'jobs') WITH ORDINALITY AS each (said, n);
    ELSIF json_typeof(call) IS DISTINCT FROM 'array' THEN
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
