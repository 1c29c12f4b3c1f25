-- Has the caller's transaction ring for `queues` when it commits; `moment` is its time, in ms.
--
-- Transactions that notify commit one behind the other, each with its own wait for the disk. So where two that are
-- open already ring for a queue since the same 50 ms, a third leaves it to them. It may commit after them: then the
-- next that rings, or an idle worker's next look, finds its jobs; workers look again soon after they had something.
CREATE OR REPLACE FUNCTION {schema}.holdfast_wake(queues text[], moment bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $function$
DECLARE
    channel text := {schema}.holdfast_channel();
BEGIN
    PERFORM pg_notify(channel, queue)
    FROM unnest(queues) AS queue
    WHERE pg_try_advisory_xact_lock(hashtextextended(channel || queue, moment / 50 * 2))
        OR pg_try_advisory_xact_lock(hashtextextended(channel || queue, moment / 50 * 2 + 1));
END
$function$;
