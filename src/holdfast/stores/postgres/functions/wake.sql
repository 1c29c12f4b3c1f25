-- Has the caller's transaction ring for `queues`, but those that are paused, when it commits; `moment` is its time, in ms. With
-- `SET holdfast.notify = off` it does not ring, so that it can be prepared (PREPARE TRANSACTION).
--
-- Transactions that notify commit one behind the other, each with its own wait for the disk. So where two that are
-- open already ring for a queue since the same 50 ms, a third leaves it to them. It may commit after them: then the
-- next that rings, or an idle worker's next look, finds its jobs; workers look again soon after they had something.
--
-- All locks of a server stand in one table, so a transaction takes one for each queue at most, however long it lasts,
-- and rings for all queues at once (`*`) where there are many. holdfast.rung holds what it rings for, an array of
-- channels and queues: it goes with a savepoint that is rolled back, as the ringing and the lock do.
CREATE OR REPLACE FUNCTION {schema}.holdfast_wake(queues text[], moment bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    channel text := {schema}.holdfast_channel();
    rung text[];
    fresh text[];
BEGIN
    IF NOT coalesce(nullif(current_setting('holdfast.notify', true), '')::boolean, true) THEN
        RETURN;
    END IF;
    rung := coalesce(nullif(current_setting('holdfast.rung', true), '')::text[], '{}');
    IF channel || ' *' = ANY (rung) THEN
        RETURN;
    END IF;
    fresh := ARRAY(
        SELECT DISTINCT named.queue FROM unnest(queues) AS named (queue)
        WHERE channel || ' ' || named.queue <> ALL (rung) AND NOT EXISTS (
            SELECT FROM {schema}.holdfast_pauses AS pause
            WHERE pause.queue = named.queue AND (pause.until IS NULL OR pause.until > moment)
        )
    );
    IF cardinality(rung) + cardinality(fresh) > 64 THEN
        PERFORM pg_notify(channel, '*');
        fresh := ARRAY['*'];
    ELSE
        fresh := ARRAY(
            SELECT queue FROM unnest(fresh) AS queue
            WHERE pg_try_advisory_xact_lock(hashtextextended(channel || queue, moment / 50 * 2))
                OR pg_try_advisory_xact_lock(hashtextextended(channel || queue, moment / 50 * 2 + 1))
        );
        PERFORM pg_notify(channel, queue) FROM unnest(fresh) AS queue;
    END IF;
    IF fresh <> '{}' THEN
        PERFORM set_config(
            'holdfast.rung', (rung || ARRAY(SELECT channel || ' ' || queue FROM unnest(fresh) AS queue))::text, true
        );
    END IF;
END
$function$;
