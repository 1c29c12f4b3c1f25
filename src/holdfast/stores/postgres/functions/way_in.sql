-- The place of one draft in its queue; `way` as for holdfast_admit. `answer`: accepted, full, dropped, unreserved.
-- `dropped`: a job, locked, that ends for it once it is stored (holdfast_drop), and whose place it takes. `counted`: the place is still to be added to those
-- taken, once the job is stored. The rest is the queue as it was met, where it has a bound and no place.
CREATE OR REPLACE FUNCTION {schema}.holdfast_way_in(
    job_id uuid, queue_name text, way text, moment bigint,
    OUT answer text, OUT dropped uuid, OUT counted boolean,
    OUT depth bigint, OUT bound bigint, OUT when_full text, OUT block_timeout bigint
)
LANGUAGE plpgsql
AS $function$
DECLARE
    room record;
BEGIN
    answer := 'accepted';
    counted := false;
    IF NOT EXISTS (
        SELECT 1 FROM {schema}.holdfast_queues AS queue WHERE queue.name = queue_name AND queue.max_size IS NOT NULL
    ) THEN
        RETURN;
    END IF;
    IF way = 'within' THEN
        DELETE FROM {schema}.holdfast_reservations AS mine WHERE mine.job = job_id AND mine.until > moment;
        IF FOUND THEN
            RETURN;
        END IF;
        IF NOT {schema}.holdfast_keeps_row(queue_name) THEN
            IF NOT {schema}.holdfast_hidden(job_id) THEN
                answer := 'unreserved';
            END IF;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO room FROM {schema}.holdfast_room(queue_name, moment);
    IF room.bound IS NULL THEN
        RETURN;
    END IF;
    IF way = 'reserve' THEN
        UPDATE {schema}.holdfast_reservations AS mine SET until = moment + {schema}.holdfast_reserved() WHERE mine.job = job_id;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF room.depth >= room.bound THEN
        IF room.when_full = 'drop_oldest' THEN
            dropped := {schema}.holdfast_oldest(queue_name);
        END IF;
        IF dropped IS NULL THEN
            answer := CASE WHEN room.when_full = 'drop_newest' THEN 'dropped' ELSE 'full' END;
            depth := room.depth;
            bound := room.bound;
            when_full := room.when_full;
            block_timeout := room.block_timeout;
        END IF;
        IF answer = 'dropped' THEN
            UPDATE {schema}.holdfast_queues AS queue SET dropped = queue.dropped + 1 WHERE queue.name = queue_name;
        END IF;
    ELSE
        counted := true;
    END IF;
    IF way = 'reserve' AND answer = 'accepted' THEN
        INSERT INTO {schema}.holdfast_reservations (job, queue, until)
        VALUES (job_id, queue_name, moment + {schema}.holdfast_reserved());
        IF dropped IS NOT NULL THEN
            PERFORM {schema}.holdfast_drop(dropped, moment);
        ELSIF counted THEN
            UPDATE {schema}.holdfast_queues AS queue SET admitted = queue.admitted + 1 WHERE queue.name = queue_name;
        END IF;
    END IF;
END
$function$;
