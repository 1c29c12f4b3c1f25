-- Gives dead and cancelled jobs a new life, one after the other: each may take the key or the place that the next
-- would have. Parameters: ids; shift
-- Returns per id, in order: the answer, `locked` where another transaction holds the job's row, its key or its queue;
-- who has its key; its queue, and how that was met where it is full.
CREATE OR REPLACE FUNCTION {schema}.holdfast_retry(ids uuid[], shift bigint)
RETURNS TABLE (answer text, holder uuid, name text, depth bigint, bound bigint, when_full text, block_timeout bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET lock_timeout = '20ms'
AS $$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    ours uuid[];
    asked uuid;
    job record;
    other record;
    place record;
BEGIN
    ours := ARRAY(
        SELECT row.id FROM {schema}.holdfast_jobs AS row
        WHERE row.id = ANY (ids) AND row.state IN ('dead', 'cancelled')
        ORDER BY row.id
        FOR NO KEY UPDATE SKIP LOCKED
    );
    FOREACH asked IN ARRAY ids LOOP
        answer := 'locked';
        holder := NULL; name := NULL; depth := NULL; bound := NULL; when_full := NULL; block_timeout := NULL;
        SELECT row.state, row.queue, row.unique_key, row.id = ANY (ours) AS mine INTO job
        FROM {schema}.holdfast_jobs AS row WHERE row.id = asked AND row.state <> 'deleted';
        IF NOT FOUND THEN
            answer := 'missing';
        ELSIF job.state = 'succeeded' THEN
            answer := 'succeeded';
        ELSIF job.state NOT IN ('dead', 'cancelled') THEN
            answer := 'unfinished';
        ELSIF job.mine THEN
            name := job.queue;
            BEGIN
                -- Who has its key, its time being over or not: whoever is in the index of keys.
                SELECT row.id, row.state IN ('succeeded', 'dead', 'cancelled')
                    AND coalesce(row.finished_at + row.unique_hold <= moment, true) AS over
                INTO other
                FROM {schema}.holdfast_jobs AS row
                WHERE job.unique_key IS NOT NULL AND row.queue = job.queue AND row.unique_key = job.unique_key
                AND row.id <> asked
                AND (row.unique_until = 'finished' OR row.started_at IS NULL)
                AND (
                    row.state IN ('queued', 'running', 'scheduled', 'waiting')
                    OR (row.unique_hold > 0 AND NOT row.unique_over AND row.state <> 'deleted')
                );
                IF other.id IS NOT NULL AND NOT other.over THEN
                    answer := 'taken';
                    holder := other.id;
                ELSE
                    SELECT met.* INTO place FROM {schema}.holdfast_place(job.queue, moment) AS met;
                    IF NOT place.taken THEN
                        answer := 'full';
                        depth := place.depth; bound := place.bound;
                        when_full := place.when_full; block_timeout := place.block_timeout;
                    ELSE
                        IF other.id IS NOT NULL THEN
                            UPDATE {schema}.holdfast_jobs AS row SET unique_over = true WHERE row.id = other.id;
                        END IF;
                        UPDATE {schema}.holdfast_jobs AS row
                        SET
                            state = 'queued', due_at = moment, life = row.life + 1, attempt = 0, releases = 0,
                            losses = 0, crashes = 0, alone = row.born_alone, started_at = NULL, finished_at = NULL,
                            prune_at = NULL, result = NULL, reason = '', unique_over = false
                        WHERE row.id = asked;
                        answer := 'retried';
                    END IF;
                END IF;
            EXCEPTION
                WHEN lock_not_available THEN
                    answer := 'locked';
                WHEN unique_violation THEN -- taken meanwhile; asked again, it says by whom
                    answer := 'locked';
            END;
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$$;
