-- Counts the places of a queue anew, if nobody holds its row just now: what went wrong with them, a starting worker puts
-- right.
CREATE OR REPLACE FUNCTION {schema}.holdfast_put_right(queue_name text, moment bigint) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM 1 FROM {schema}.holdfast_queues AS queue
    WHERE queue.name = queue_name AND queue.max_size IS NOT NULL
    FOR NO KEY UPDATE SKIP LOCKED;
    IF FOUND THEN
        PERFORM {schema}.holdfast_recount(queue_name, moment);
    END IF;
END
$function$;
