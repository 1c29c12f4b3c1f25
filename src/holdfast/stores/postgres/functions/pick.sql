-- Locks the first queued jobs of a queue that nobody else has locked, for holdfast_claim: never more than the limit, as
-- nothing is taken in the statement that looks.
-- Parameters: queue, limit, floor (NULL: none; see there), now
-- Returns where the rows are (NULL: nowhere), and the floor for the next look.
CREATE OR REPLACE FUNCTION {schema}.holdfast_pick(
    chosen text, wanted bigint, old_floor text, moment bigint, OUT rows tid[], OUT floor text
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    ready CONSTANT oid := $name${schema}.holdfast_ready$name$::regclass;
    known jsonb := old_floor::jsonb;
    begins boolean := coalesce(moment < (known ->> 2)::bigint, false);
    rank integer := CASE WHEN begins THEN (known ->> 0)::integer ELSE -2147483648 END;
    due bigint := CASE WHEN begins THEN (known ->> 1)::bigint ELSE -9223372036854775808 END;
    steps bigint := coalesce(pg_stat_get_xact_tuples_returned(ready), 0);
BEGIN
    SELECT array_agg(first.ctid) INTO rows
    FROM (
        SELECT job.ctid FROM {schema}.holdfast_jobs AS job
        WHERE job.state = 'queued' AND job.queue = chosen
        AND (~job.priority, job.due_at, job.id) > (rank, due, '00000000-0000-0000-0000-000000000000')
        ORDER BY ~job.priority, job.due_at, job.id
        LIMIT wanted
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS first;
    steps := coalesce(pg_stat_get_xact_tuples_returned(ready), 0) - steps - coalesce(cardinality(rows), 0);
    IF begins OR steps > 1000 THEN
        floor := (
            -- A little before the last: what was due then may still be committed.
            SELECT jsonb_build_array(
                ~job.priority, job.due_at - 250,
                CASE WHEN begins THEN (known ->> 2)::bigint ELSE moment + steps / 30 END
            )
            FROM {schema}.holdfast_jobs AS job WHERE job.ctid = rows[cardinality(rows)]
        );
        IF floor IS NULL AND begins THEN
            floor := old_floor;
        ELSIF floor IS NULL AND known IS NOT NULL THEN
            floor := jsonb_set(known, '{2}', to_jsonb(moment + steps / 30));
        END IF;
    END IF;
END
$body$;
