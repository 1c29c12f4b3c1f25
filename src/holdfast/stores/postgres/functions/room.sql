-- A bounded queue as it is met, with its row locked, so that the caller may take places in it (`admitted`). Where it
-- looks full it is counted anew, every 250 ms at most, and while others may still let jobs in without a look at the bound
-- (see holdfast_recount). Without a bound all is NULL, and nothing is locked.
CREATE OR REPLACE FUNCTION {schema}.holdfast_room(
    queue_name text, moment bigint,
    OUT depth bigint, OUT bound bigint, OUT when_full text, OUT block_timeout bigint
)
LANGUAGE plpgsql
AS $function$
DECLARE
    met record;
BEGIN
    SELECT queue.max_size, queue.when_full, queue.block_timeout, queue.admitted, queue.counted_at,
        queue.unsettled IS NOT NULL AND queue.counted_by IS DISTINCT FROM pg_current_xact_id() AS unsettled
    INTO met
    FROM {schema}.holdfast_queues AS queue
    WHERE queue.name = queue_name AND queue.max_size IS NOT NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    bound := met.max_size;
    when_full := met.when_full;
    block_timeout := met.block_timeout;
    -- Only now that the row is ours: an older look would miss what was given back while we waited for it.
    depth := met.admitted - coalesce(
        (SELECT gone.places FROM {schema}.holdfast_left AS gone WHERE gone.queue = queue_name), 0
    );
    -- (To count a long queue takes long, and others wait meanwhile: 300,000 jobs are counted every 3 s, unless it is
    -- nearly full.)
    IF met.unsettled AND (abs(moment - met.counted_at) >= depth / 100 OR depth >= bound - bound / 10)
        OR depth >= bound AND abs(moment - met.counted_at) >= 250
    THEN
        depth := {schema}.holdfast_recount(queue_name, moment);
    END IF;
END
$function$;
