-- One word on one queue; parameters as for holdfast_configure. A word that changes something waits up to 5 s for
-- whoever enqueues to the queue just now.
CREATE OR REPLACE FUNCTION {schema}.holdfast_declare(queue_name text, terms jsonb, authority text, moment bigint)
RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    met record;
    code jsonb;
    operator jsonb;
    valid jsonb;
    changed boolean;
BEGIN
    FOR look IN 1..2 LOOP  -- without a lock first: nearly always there is nothing to do
        IF look = 1 THEN
            SELECT queue.declared, queue.edited, queue.max_size INTO met
            FROM {schema}.holdfast_queues AS queue WHERE queue.name = queue_name;
        ELSE
            SELECT queue.declared, queue.edited, queue.max_size INTO met
            FROM {schema}.holdfast_queues AS queue WHERE queue.name = queue_name
            FOR NO KEY UPDATE;
        END IF;
        code := {schema}.holdfast_terms(met.declared);
        operator := {schema}.holdfast_terms(met.edited);
        IF authority = 'operator' THEN
            operator := terms;
        ELSIF terms IS NOT NULL AND (authority = 'worker' OR code IS NULL) THEN
            code := terms;
        END IF;
        valid := coalesce(operator, code);
        changed := met.declared IS DISTINCT FROM code::text OR met.edited IS DISTINCT FROM operator::text
            OR met.max_size IS DISTINCT FROM (valid ->> 0)::bigint;
        IF look = 1 AND NOT changed THEN
            IF met.max_size IS NOT NULL AND authority <> 'producer' THEN
                PERFORM {schema}.holdfast_put_right(queue_name, moment);
            END IF;
            RETURN;
        END IF;
        IF look = 1 THEN
            PERFORM set_config('lock_timeout', '5s', true);
            INSERT INTO {schema}.holdfast_queues (name, when_full) VALUES (queue_name, 'reject')
            ON CONFLICT (name) DO NOTHING;
        END IF;
    END LOOP;

    IF valid IS NULL THEN
        DELETE FROM {schema}.holdfast_queues AS queue WHERE queue.name = queue_name;
        DELETE FROM {schema}.holdfast_left AS gone WHERE gone.queue = queue_name;
        RETURN;
    END IF;
    UPDATE {schema}.holdfast_queues AS queue
    SET
        declared = code::text, edited = operator::text,
        max_size = (valid ->> 0)::bigint, when_full = valid ->> 1, block_timeout = (valid ->> 2)::bigint,
        weight = coalesce((valid ->> 3)::bigint, 1),
        unsettled = CASE WHEN valid ->> 0 IS NOT NULL THEN queue.unsettled END
    WHERE queue.name = queue_name;
    IF valid ->> 0 IS NULL THEN
        DELETE FROM {schema}.holdfast_left AS gone WHERE gone.queue = queue_name;
    ELSE
        INSERT INTO {schema}.holdfast_left (queue) VALUES (queue_name) ON CONFLICT (queue) DO NOTHING;
        IF met.max_size IS NULL OR authority <> 'producer' THEN
            PERFORM {schema}.holdfast_recount(queue_name, moment);
        END IF;
        IF met.max_size IS NULL THEN  -- nobody has seen it yet, see holdfast_recount
            UPDATE {schema}.holdfast_queues AS queue SET unsettled = '18446744073709551615'::xid8
            WHERE queue.name = queue_name;
        END IF;
    END IF;
END
$function$;
