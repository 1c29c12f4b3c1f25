-- Rings for `queues`, which have queued jobs, on a connection of ours and in a transaction of its own; not for those that
-- are paused. Among them may be words that are no queues: ! and the id of a job that has ended.
CREATE OR REPLACE FUNCTION {schema}.holdfast_ring(queues text[], shift bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
BEGIN
    -- A notification holds up all others until its commit is through: that shall not wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_notify({schema}.holdfast_channel(), word)
    FROM unnest(queues) AS word
    WHERE word NOT IN (
        SELECT pause.queue FROM {schema}.holdfast_pauses AS pause
        WHERE pause.until IS NULL OR pause.until > {schema}.holdfast_now(shift)
    );
END
$function$;
