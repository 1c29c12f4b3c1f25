-- Stores drafts: all that can be in one statement, what is met by an id, a key or a bound one by one. Returns the
-- receipts of those that were looked at singly, with their number in the call; all others are simply stored.
--
-- Whoever waits for others here does so in one order, so that no two calls wait for each other: the rows of bounded
-- queues by name, then ids, then keys by queue and key. An own connection gives up soon, and takes keys in one statement.
--
-- Draft n has the id ids[n] and the payload payloads[n]; what else it says is element kind[n] of the JSON array `kinds`
-- (both count from 1): the columns that a producer writes, with `delay` or `at`. `way`: as for holdfast_admit.
CREATE OR REPLACE FUNCTION {schema}.holdfast_put(
    ids uuid[], kind integer[], payloads bytea[], kinds json, way text, moment bigint
)
RETURNS TABLE (
    nth integer, answer text, created boolean, holder uuid, dropped uuid,
    depth bigint, bound bigint, when_full text, block_timeout bigint
)
LANGUAGE plpgsql
AS $function$
DECLARE
    tight text[] := '{}';  -- queues in which not all may find a place
    roomy text[] := '{}';  -- bounded ones in which all will
    loose text[];
    stored uuid[] := '{}';
    asked record;
    -- Whether an id appears twice, and not in one kind only (there the first is stored anyway).
    twice boolean := json_array_length(kinds) > 1
        AND cardinality(ids) > (SELECT count(DISTINCT one.id) FROM unnest(ids) AS one (id));
BEGIN
    -- Before the first look at the bounds: who sets one can tell by it who has not seen it (see holdfast_recount).
    PERFORM pg_current_xact_id();
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        loose := ARRAY(
            SELECT DISTINCT said.value ->> 'queue' FROM json_array_elements(kinds) AS said (value)
            WHERE NOT EXISTS (
                SELECT 1 FROM {schema}.holdfast_queues AS queue
                WHERE queue.name = said.value ->> 'queue' AND queue.max_size IS NOT NULL
            )
        );
        IF loose <> '{}' THEN
            PERFORM {schema}.holdfast_unbound(loose);
        END IF;
    END IF;
    IF EXISTS (SELECT 1 FROM {schema}.holdfast_queues AS queue WHERE queue.max_size IS NOT NULL) THEN
        FOR asked IN
            SELECT queue.name, wanted.number
            FROM (
                SELECT said.value ->> 'queue' AS name, count(*) AS number
                FROM unnest(kind) AS draft (k)
                JOIN json_array_elements(kinds) WITH ORDINALITY AS said (value, k) ON said.k = draft.k
                GROUP BY 1
            ) AS wanted
            JOIN {schema}.holdfast_queues AS queue ON queue.name = wanted.name AND queue.max_size IS NOT NULL
            ORDER BY queue.name
        LOOP
            -- The row is locked before the first look at a key, so that nothing is dropped for what is a duplicate then.
            -- With one in hand an own connection hardly waits for anything more: all who enqueue there wait with it.
            IF way IN ('own', 'reserve') AND tight || roomy <> '{}' THEN
                PERFORM set_config('lock_timeout', '2ms', true);
            END IF;
            IF way <> 'within' AND (
                SELECT room.bound IS NULL OR room.depth + asked.number <= room.bound
                FROM {schema}.holdfast_room(asked.name, moment) AS room
            ) THEN
                roomy := roomy || asked.name;
            ELSE
                tight := tight || asked.name;
            END IF;
        END LOOP;
        IF way IN ('own', 'reserve') AND tight || roomy <> '{}' THEN
            PERFORM set_config('lock_timeout', '2ms', true);
        ELSIF way = 'door' AND tight || roomy <> '{}' THEN
            PERFORM {schema}.holdfast_keep_row(tight || roomy);
        END IF;
    END IF;

    IF way <> 'reserve' AND NOT twice THEN
        WITH said AS (
            SELECT
                of.*, coalesce(of.at, moment + of.delay) AS due,
                dense_rank() OVER (ORDER BY of.queue COLLATE "C", of.unique_key COLLATE "C" NULLS FIRST) AS rank
            FROM ROWS FROM (
                json_to_recordset(kinds) AS (
                    task text, queue text, line text, priority integer, alone boolean, terms text, tags text[],
                    headers text, unique_key text, unique_until text, unique_hold bigint, unique_clash text,
                    delay bigint, at bigint, expires_in bigint, expires_at bigint, deadline_in bigint,
                    deadline_at bigint
                )
            ) WITH ORDINALITY AS of (
                task, queue, line, priority, alone, terms, tags, headers, unique_key, unique_until, unique_hold,
                unique_clash, delay, at, expires_in, expires_at, deadline_in, deadline_at, k
            )
        ),
        fresh AS (
            INSERT INTO {schema}.holdfast_jobs (
                id, enqueued_at, due_at, unique_hold, priority, alone, born_alone, state, task, queue, line, terms,
                tags, headers, unique_key, unique_until, unique_clash, payload, expires_at, deadline_at
            )
            SELECT
                draft.id, moment, said.due, coalesce(said.unique_hold, 0), said.priority, said.alone, said.alone,
                CASE WHEN said.due <= moment THEN 'queued' ELSE 'scheduled' END,
                said.task, said.queue, said.line, said.terms, said.tags, said.headers,
                said.unique_key, said.unique_until, said.unique_clash, draft.payload,
                coalesce(said.expires_at, moment + said.expires_in),
                coalesce(said.deadline_at, moment + said.deadline_in)
            FROM unnest(ids, kind, payloads) WITH ORDINALITY AS draft (id, k, payload, n)
            JOIN said ON said.k = draft.k
            WHERE said.queue <> ALL (tight) AND (way = 'own' OR said.unique_key IS NULL)
            -- One order for all who enqueue, so that none waits for another in a ring; of a key the first is stored.
            ORDER BY said.rank, CASE WHEN said.unique_key IS NULL THEN draft.id END, draft.n
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT array_agg(fresh.id) INTO stored FROM fresh;
        IF cardinality(roomy) > 0 AND stored IS NOT NULL THEN
            UPDATE {schema}.holdfast_queues AS queue SET admitted = queue.admitted + taken.number
            FROM (
                SELECT job.queue AS name, count(*) AS number FROM {schema}.holdfast_jobs AS job
                WHERE job.id = ANY (stored) AND job.queue = ANY (roomy)
                GROUP BY job.queue
            ) AS taken
            WHERE queue.name = taken.name;
        END IF;
        IF cardinality(stored) = cardinality(ids) THEN
            RETURN;
        END IF;
    END IF;

    RETURN QUERY
    SELECT
        draft.n::integer, receipt.answer, receipt.created, receipt.holder, receipt.dropped,
        receipt.depth, receipt.bound, receipt.when_full, receipt.block_timeout
    FROM (
        SELECT each.*, said.value
        FROM (
            SELECT
                one.*, row_number() OVER (PARTITION BY one.id ORDER BY one.n) AS time,
                first_value(one.k) OVER (PARTITION BY one.id ORDER BY one.n) AS first
            FROM unnest(ids, kind, payloads) WITH ORDINALITY AS one (id, k, payload, n)
        ) AS each
        JOIN json_array_elements(kinds) WITH ORDINALITY AS said (value, k) ON said.k = each.k
        JOIN json_array_elements(kinds) WITH ORDINALITY AS named (value, k) ON named.k = each.first
        WHERE each.time > 1 OR each.id <> ALL (coalesce(stored, '{}'))
        -- Of an id that appears twice the first is stored, wherever it goes. Of a bounded queue whose row is in hand the
        -- first drafts get the places that are left: all others who enqueue there wait for that row.
        ORDER BY
            named.value ->> 'queue' COLLATE "C",
            CASE WHEN way = 'within' OR named.value ->> 'queue' <> ALL (tight) THEN
                named.value ->> 'unique_key'
            END COLLATE "C" NULLS FIRST,
            CASE WHEN
                named.value ->> 'unique_key' IS NULL AND (way = 'within' OR named.value ->> 'queue' <> ALL (tight))
            THEN each.id END,
            each.n
        OFFSET 0
    ) AS draft
    CROSS JOIN LATERAL {schema}.holdfast_admit(draft.id, draft.value, draft.payload, way, moment) AS receipt;
END
$function$;
