-- Locks the first queued jobs of a queue that nobody else has locked, for holdfast_claim: never more than the limit, as
-- nothing is taken in the statement that looks. What cannot be started any more is passed over, for holdfast_promote_2.
-- Parameters: queue, limit, floor (NULL: none; see there), now, rows that the claim has in hand already
-- Returns where the rows are (NULL: nowhere), and the floor for the next look.
CREATE OR REPLACE FUNCTION {schema}.holdfast_pick(
    chosen text, wanted bigint, old_floor text, moment bigint, in_hand tid[], OUT rows tid[], OUT floor text
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
    begins boolean := coalesce((known ->> 2)::bigint - moment BETWEEN 1 AND 2000, false);
    rank integer := CASE WHEN begins THEN (known ->> 0)::integer ELSE -2147483648 END;
    due bigint := CASE WHEN begins THEN (known ->> 1)::bigint ELSE -9223372036854775808 END;
    steps bigint;
BEGIN
    LOOP
        steps := coalesce(pg_stat_get_xact_tuples_returned(ready), 0);
        SELECT array_agg(first.ctid) INTO rows
        FROM (
            SELECT job.ctid FROM {schema}.holdfast_jobs AS job
            WHERE job.state = 'queued' AND job.queue = chosen
            AND (~job.priority, job.due_at, job.id) > (rank, due, '00000000-0000-0000-0000-000000000000')
            AND (job.deadline_at IS NULL OR job.deadline_at > moment)
            AND (job.expires_at IS NULL OR job.expires_at > moment OR job.started_at IS NOT NULL)
            AND job.ctid <> ALL (in_hand)
            ORDER BY ~job.priority, job.due_at, job.id
            LIMIT wanted
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS first;
        steps := coalesce(pg_stat_get_xact_tuples_returned(ready), 0) - steps - coalesce(cardinality(rows), 0);
        EXIT WHEN NOT begins OR cardinality(rows) = wanted OR moment < (known ->> 3)::bigint;
        begins := false; -- there is time to look at all
        rank := -2147483648;
        due := -9223372036854775808;
    END LOOP;
    IF begins OR steps > 1000 THEN
        floor := (
            -- A little before the last: what was due then may still be committed.
            SELECT jsonb_build_array(~job.priority, job.due_at - 250)
            FROM {schema}.holdfast_jobs AS job WHERE job.ctid = rows[cardinality(rows)]
        );
        floor := coalesce(floor::jsonb, jsonb_build_array(known -> 0, known -> 1)) || CASE
            WHEN begins THEN jsonb_build_array(known -> 2, known -> 3)
            ELSE jsonb_build_array(moment + least(steps / 30, 2000), moment + least(steps / 200, 2000))
        END;
        IF floor::jsonb -> 0 = 'null' THEN -- it found nothing, and has no floor yet
            floor := NULL;
        END IF;
    END IF;
END
$body$;
