-- Rings for `queues`, which have queued jobs, on a connection of ours and in a transaction of its own.
CREATE OR REPLACE FUNCTION {schema}.holdfast_ring(queues text[], shift bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $function$
BEGIN
    -- A notification holds up all others until its commit is through: that shall not wait for the disk.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_notify({schema}.holdfast_channel(), queue) FROM unnest(queues) AS queue;
END
$function$;
