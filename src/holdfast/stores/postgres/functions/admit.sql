-- Lets one draft in: its id counts first, then its unique key, then the place in its queue. Each look is a fresh one, so
-- what others commit meanwhile is seen, and the receipt is never empty.
--
-- `draft`: a JSON object of the columns that a producer writes, with `delay` or `at`, and with `expires_in` and
-- `deadline_in`, each in place of such a column. `way`: "own" (a connection of
-- ours), "within" (a caller's transaction: places of bounded queues were reserved), "door" (a caller's transaction that
-- cannot reserve: the queue's row stays locked until its end), "reserve" (takes the place, and stores no job).
CREATE OR REPLACE FUNCTION {schema}.holdfast_admit(
    job_id uuid, draft json, body bytea, way text, moment bigint,
    OUT answer text, OUT created boolean, OUT holder uuid, OUT dropped uuid,
    OUT depth bigint, OUT bound bigint, OUT when_full text, OUT block_timeout bigint
)
LANGUAGE plpgsql
AS $function$
DECLARE
    new record;
    due bigint;
    alike boolean;
    held record;
    key_of uuid;  -- who has had its key, and may lose it
    room record;
    written bigint;
BEGIN
    SELECT * INTO new FROM json_to_record(draft) AS said (
        task text, queue text, line text, priority integer, alone boolean, terms text, tags text[], headers text,
        unique_key text, unique_until text, unique_hold bigint, unique_clash text, delay bigint, at bigint,
        expires_in bigint, expires_at bigint, deadline_in bigint, deadline_at bigint
    );
    due := coalesce(new.at, moment + new.delay);
    FOR attempt IN 1..1000 LOOP
        answer := NULL;
        created := false;
        holder := NULL;
        dropped := NULL;

        SELECT
            known.task = new.task AND known.queue = new.queue
            AND CASE
                WHEN known.content IS NULL THEN known.payload = body
                ELSE known.content = {schema}.holdfast_content(new.task, new.queue, body)
            END
        INTO alike
        FROM {schema}.holdfast_jobs AS known
        WHERE known.id = job_id;
        IF FOUND THEN
            answer := CASE WHEN alike OR way = 'reserve' THEN 'accepted' ELSE 'conflict' END;
            RETURN;
        END IF;

        key_of := NULL;
        IF new.unique_key IS NOT NULL THEN
            SELECT * INTO held FROM {schema}.holdfast_holder(new.queue, new.unique_key, new.task, moment);
            IF held.id IS NOT NULL AND NOT held.over THEN
                IF way = 'reserve' THEN
                    answer := 'accepted';
                    RETURN;
                END IF;
                holder := held.id;
                answer := CASE
                    WHEN new.unique_clash = 'return' AND held.alike THEN 'duplicate'
                    WHEN new.unique_clash = 'replace' AND held.alike AND held.open THEN 'replaced'
                    ELSE 'taken'
                END;
                EXIT WHEN answer <> 'replaced';
                UPDATE {schema}.holdfast_jobs AS job
                SET
                    content = coalesce(job.content, {schema}.holdfast_content(job.task, job.queue, job.payload)),
                    payload = body,
                    due_at = due,
                    expires_at = coalesce(new.expires_at, moment + new.expires_in),
                    deadline_at = coalesce(new.deadline_at, moment + new.deadline_in),
                    state = CASE WHEN due <= moment THEN 'queued' ELSE 'scheduled' END
                WHERE job.id = held.id AND job.started_at IS NULL AND job.state IN ('queued', 'scheduled');
                EXIT WHEN FOUND;
                answer := NULL;
                CONTINUE;  -- it was started or ended meanwhile
            END IF;
            key_of := held.id;
        END IF;

        SELECT * INTO room FROM {schema}.holdfast_way_in(job_id, new.queue, way, moment);
        answer := room.answer;
        dropped := room.dropped;
        depth := room.depth;
        bound := room.bound;
        when_full := room.when_full;
        block_timeout := room.block_timeout;
        EXIT WHEN answer <> 'accepted' OR way = 'reserve';

        IF key_of IS NOT NULL THEN
            UPDATE {schema}.holdfast_jobs AS job SET unique_over = true
            WHERE job.id = key_of AND job.finished_at + job.unique_hold <= moment AND NOT job.unique_over;
        END IF;
        INSERT INTO {schema}.holdfast_jobs (
            id, enqueued_at, due_at, unique_hold, priority, alone, born_alone, state, task, queue, line, terms, tags,
            headers, unique_key, unique_until, unique_clash, payload, expires_at, deadline_at
        )
        VALUES (
            job_id, moment, due, coalesce(new.unique_hold, 0), new.priority, new.alone, new.alone,
            CASE WHEN due <= moment THEN 'queued' ELSE 'scheduled' END,
            new.task, new.queue, new.line, new.terms, new.tags,
            new.headers, new.unique_key, new.unique_until, new.unique_clash, body,
            coalesce(new.expires_at, moment + new.expires_in), coalesce(new.deadline_at, moment + new.deadline_in)
        )
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            created := true;
            IF dropped IS NOT NULL THEN
                PERFORM {schema}.holdfast_drop(dropped, moment);
            ELSIF room.counted THEN
                UPDATE {schema}.holdfast_queues AS queue SET admitted = queue.admitted + 1 WHERE queue.name = new.queue;
            END IF;
            RETURN;
        END IF;
        -- Another one has taken the id or the key since we looked.
        answer := NULL;
    END LOOP;
    IF answer IS NULL THEN
        RAISE EXCEPTION 'job % was not stored, though its id and its key are free', job_id;
    END IF;
END
$function$;
