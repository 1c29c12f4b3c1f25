-- Takes one place in a queue for a job that is there already, as an operator's retry does; drops nothing.
-- `taken` is true too where the queue has no bound (then `bound` is NULL).
CREATE OR REPLACE FUNCTION {schema}.holdfast_place(
    queue_name text, moment bigint,
    OUT taken boolean, OUT depth bigint, OUT bound bigint, OUT when_full text, OUT block_timeout bigint
)
LANGUAGE plpgsql
AS $function$
BEGIN
    SELECT room.depth, room.bound, room.when_full, room.block_timeout INTO depth, bound, when_full, block_timeout
    FROM {schema}.holdfast_room(queue_name, moment) AS room;
    taken := bound IS NULL OR depth < bound;
    IF taken AND bound IS NOT NULL THEN
        UPDATE {schema}.holdfast_queues AS queue SET admitted = queue.admitted + 1 WHERE queue.name = queue_name;
    END IF;
END
$function$;
