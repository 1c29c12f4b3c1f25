-- Declares queues: `queues` is a JSON object, by name, of [max_size, when_full, block_timeout, weight], or of null to take an
-- operator's word back. `authority`: producer, worker, operator. Writes nothing where nothing changes. Places are
-- counted anew where a bound is new, and at a worker's and an operator's word.
CREATE OR REPLACE FUNCTION {schema}.holdfast_configure(queues text, authority text, shift bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
AS $function$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    word record;
BEGIN
    FOR word IN
        SELECT entry.key AS name, nullif(entry.value, 'null'::jsonb) AS terms
        FROM jsonb_each(queues::jsonb) AS entry
        ORDER BY entry.key COLLATE "C"
    LOOP
        PERFORM {schema}.holdfast_declare(word.name, word.terms, authority, moment);
    END LOOP;
END
$function$;
