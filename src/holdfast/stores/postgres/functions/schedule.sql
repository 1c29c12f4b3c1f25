-- Stores schedules: a new one (revision 0), or in place of the one that has just the revision that is said. Parameters:
-- entries, a JSON array of objects with the columns that are named below; shift (of no use)
-- Returns, in order, whether it was stored.
CREATE OR REPLACE FUNCTION {schema}.holdfast_schedule(entries text, shift bigint) RETURNS TABLE (stored boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    said record;
    answers boolean[];
BEGIN
    FOR said IN
        SELECT one.*, entry.place
        FROM json_array_elements(entries::json) WITH ORDINALITY AS entry (value, place)
        CROSS JOIN LATERAL json_to_record(entry.value) AS one (
            name text, queue text, text text, next_at bigint, paused_since bigint, paused_until bigint, paused_why text,
            revision bigint
        )
        ORDER BY one.name COLLATE "C", entry.place -- one order for all, so that none waits for another in a ring
    LOOP
        IF said.revision = 0 THEN
            INSERT INTO {schema}.holdfast_schedules (
                name, queue, text, next_at, paused_since, paused_until, paused_why, revision
            )
            VALUES (
                said.name, said.queue, said.text, said.next_at, said.paused_since, said.paused_until, said.paused_why, 1
            )
            ON CONFLICT (name) DO NOTHING;
        ELSE
            UPDATE {schema}.holdfast_schedules AS known
            SET
                queue = said.queue, text = said.text, next_at = said.next_at, paused_since = said.paused_since,
                paused_until = said.paused_until, paused_why = said.paused_why, revision = known.revision + 1
            WHERE known.name = said.name AND known.revision = said.revision;
        END IF;
        answers[said.place] := FOUND;
    END LOOP;
    RETURN QUERY SELECT unnest(answers);
END
$function$;
