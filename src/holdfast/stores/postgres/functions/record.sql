-- Adds a report to the history of this minute and of these ten minutes. Parameters: reporter; the report's number;
-- tallies, a JSON array of [queue, task, outcome, count, ran, waited], none of which is of the same queue, task and outcome
-- as another; levels, a JSON array of [queue, depth, oldest], none of the same queue; shift
-- Returns the number of the reporter's last report; 0 for one that is unknown or retired.
CREATE OR REPLACE FUNCTION {schema}.holdfast_record(
    reporter uuid, number bigint, tallies text, levels text, shift bigint
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    last bigint;
BEGIN
    SELECT worker.reported INTO last FROM {schema}.holdfast_workers AS worker
    WHERE worker.id = reporter AND worker.retired_at IS NULL
    FOR NO KEY UPDATE;
    IF last IS NULL OR number <= last THEN
        RETURN coalesce(last, 0);
    END IF;
    UPDATE {schema}.holdfast_workers AS worker SET reported = number WHERE worker.id = reporter;
    -- In one order for all who report, so that none waits for another in a ring.
    INSERT INTO {schema}.holdfast_minutes AS known (tens, start, queue, task, outcome, count, ran, waited)
    SELECT
        step.tens, moment / step.length * step.length, said.tally ->> 0, said.tally ->> 1, said.tally ->> 2,
        (said.tally ->> 3)::bigint,
        ARRAY(SELECT one::bigint FROM json_array_elements_text(said.tally -> 4) WITH ORDINALITY AS ran (one, n) ORDER BY n),
        ARRAY(SELECT one::bigint FROM json_array_elements_text(said.tally -> 5) WITH ORDINALITY AS waited (one, n) ORDER BY n)
    FROM (VALUES (false, 60000), (true, 600000)) AS step (tens, length)
    CROSS JOIN json_array_elements(tallies::json) AS said (tally)
    ORDER BY step.tens, 3, 4, 5
    ON CONFLICT (tens, start, queue, task, outcome) DO UPDATE
    SET
        count = known.count + excluded.count,
        ran = {schema}.holdfast_sums(known.ran, excluded.ran),
        waited = {schema}.holdfast_sums(known.waited, excluded.waited);
    INSERT INTO {schema}.holdfast_levels AS known (tens, start, queue, depth, oldest)
    SELECT
        step.tens, moment / step.length * step.length, said.level ->> 0, (said.level ->> 1)::bigint,
        (said.level ->> 2)::bigint
    FROM (VALUES (false, 60000), (true, 600000)) AS step (tens, length)
    CROSS JOIN json_array_elements(levels::json) AS said (level)
    ORDER BY step.tens, 3
    ON CONFLICT (tens, start, queue) DO UPDATE
    SET depth = greatest(known.depth, excluded.depth), oldest = greatest(known.oldest, excluded.oldest);
    RETURN number;
END
$function$;
