-- Gives dead and cancelled jobs a new life. Parameters: ids; how long it waits for a key or a place that another
-- transaction holds, in ms: for the first, since it keeps what it has locked already; shift
-- Returns per id, in order: the answer; who has its key; its queue, and how that was met where it is full.
-- `busy`: a transaction that is open elsewhere holds the job's row, or decides on its key or its place.
CREATE OR REPLACE FUNCTION {schema}.holdfast_retry(ids uuid[], patience bigint, shift bigint)
RETURNS TABLE (answer text, holder uuid, name text, depth bigint, bound bigint, when_full text, block_timeout bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET lock_timeout = '1ms' -- so that it is afterwards as it was
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    ours uuid[];
    plain uuid[];
    asked record;
    job record;
    other record;
    place record;
BEGIN
    PERFORM set_config('lock_timeout', patience || 'ms', true);
    ours := ARRAY(
        SELECT found.id FROM {schema}.holdfast_jobs AS found
        WHERE found.id = ANY (ids) AND found.state IN ('dead', 'cancelled')
        ORDER BY found.id
        FOR NO KEY UPDATE SKIP LOCKED
    );
    -- At once all that need neither key nor place.
    plain := ARRAY(
        SELECT found.id FROM {schema}.holdfast_jobs AS found
        WHERE found.id = ANY (ours) AND found.unique_key IS NULL AND NOT EXISTS (
            SELECT 1 FROM {schema}.holdfast_queues AS queue
            WHERE queue.name = found.queue AND queue.max_size IS NOT NULL
        )
    );
    PERFORM {schema}.holdfast_revive(plain, moment);
    -- The others one after the other: each may take the key or the place that the next would have.
    FOR asked IN
        SELECT
            named.id, mine.id IS NOT NULL AS held,
            easy.id IS NOT NULL AND row_number() OVER (PARTITION BY named.id ORDER BY named.place) = 1 AS revived
        FROM unnest(ids) WITH ORDINALITY AS named (id, place)
        LEFT JOIN unnest(ours) AS mine (id) ON mine.id = named.id
        LEFT JOIN unnest(plain) AS easy (id) ON easy.id = named.id
        ORDER BY named.place
    LOOP
        holder := NULL; depth := NULL; bound := NULL; when_full := NULL; block_timeout := NULL;
        SELECT found.state, found.queue, found.unique_key INTO job
        FROM {schema}.holdfast_jobs AS found WHERE found.id = asked.id AND found.state <> 'deleted';
        name := job.queue;
        IF job.state IS NULL THEN
            answer := 'missing';
        ELSIF asked.revived THEN
            answer := 'retried';
        ELSIF job.state = 'succeeded' THEN
            answer := 'succeeded';
        ELSIF job.state NOT IN ('dead', 'cancelled') THEN
            answer := 'unfinished';
        ELSIF NOT asked.held THEN
            answer := 'busy';
        ELSE
            BEGIN
                SELECT met.id, met.over INTO other
                FROM {schema}.holdfast_holder(job.queue, job.unique_key, '', moment) AS met
                WHERE met.id <> asked.id;
                IF other.id IS NOT NULL AND NOT other.over THEN
                    answer := 'taken';
                    holder := other.id;
                ELSE
                    SELECT met.taken, met.depth, met.bound, met.when_full, met.block_timeout INTO place
                    FROM {schema}.holdfast_place(job.queue, moment) AS met;
                    IF place.taken THEN
                        UPDATE {schema}.holdfast_jobs AS found SET unique_over = true WHERE found.id = other.id;
                        PERFORM {schema}.holdfast_revive(ARRAY[asked.id], moment);
                        answer := 'retried';
                    ELSE
                        answer := 'full';
                        depth := place.depth; bound := place.bound;
                        when_full := place.when_full; block_timeout := place.block_timeout;
                    END IF;
                END IF;
            -- query_canceled: that is what a lock_timeout may say that runs out as the lock is granted.
            EXCEPTION WHEN lock_not_available OR unique_violation OR query_canceled THEN
                answer := 'busy'; -- asked again, it may be `taken`
                PERFORM set_config('lock_timeout', '1ms', true); -- so that hundreds take no longer than one
            END;
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$function$;
