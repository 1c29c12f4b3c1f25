-- Writes outcomes under their claims' words: see Store.finish. No job may come twice in a call.
-- Parameters: the words (ids, fences, workers), those of plain successes first; of these results, keeps (NULL: for
-- good), attempts, releases, losses, crashes, alones; of the others a JSON array (NULL: none), see settle.sql; shift
-- Returns place (from 1), answer, state as recorded, and what is to be rung: the queue if the job is queued again, ! and
-- its id if it has ended and somebody waits for that (a row of its own). A success without a row is accepted.
CREATE OR REPLACE FUNCTION {schema}.holdfast_finish(
    ids uuid[], fences bigint[], workers uuid[], results bytea[], keeps bigint[], attempts integer[],
    releases integer[], losses integer[], crashes integer[], alones boolean[], others text, shift bigint
) RETURNS TABLE (place bigint, answer text, became text, filled text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $body$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
    done uuid[];
    left_queues text[];
    spared uuid[]; -- they succeeded, so what they saved goes
    ended uuid[];
    others_places bigint[];
    others_states text[];
    more record;
BEGIN
    WITH said AS MATERIALIZED (
        SELECT * FROM unnest(ids, fences, workers, results, keeps, attempts, releases, losses, crashes, alones)
        AS one (id, fence, worker, result, keep, attempt, releases, losses, crashes, alone)
        WHERE one.attempt IS NOT NULL
    ), held AS MATERIALIZED (
        -- One look by id for each, whatever the planner believes: what locks rows is never joined in another way.
        -- `worker` is set only while a job runs; to ask for the state would offer holdfast_held to the planner.
        SELECT mine.ctid, said.*
        FROM said CROSS JOIN LATERAL (
            SELECT job.ctid FROM {schema}.holdfast_jobs AS job
            WHERE job.id = said.id AND job.fence = said.fence AND job.worker = said.worker
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS mine
    ), written AS (
        UPDATE {schema}.holdfast_jobs AS job
        SET
            state = 'succeeded', finished_at = moment,
            prune_at = moment + CASE -- greatest() would pass over the NULL of what is kept for good
                WHEN held.keep IS NULL THEN NULL
                WHEN job.unique_until = 'finished' THEN greatest(held.keep, job.unique_hold)
                ELSE held.keep
            END,
            result = held.result, reason = '',
            attempt = held.attempt, releases = held.releases, losses = held.losses, crashes = held.crashes,
            alone = held.alone,
            settled_fence = held.fence, settled_by = held.worker, settled_state = 'succeeded',
            worker = NULL, ticket = NULL, loss = NULL, cancel_requested_at = NULL, cancel_fence = NULL
        FROM held WHERE job.ctid = held.ctid
        RETURNING job.id, job.queue
    )
    SELECT array_agg(written.id), array_agg(written.queue) INTO done, left_queues FROM written;
    spared := done;
    ended := done;

    IF others IS NOT NULL THEN
        SELECT
            array_agg(settled.id) AS done,
            array_agg(settled.queue) FILTER (WHERE settled.final) AS left_queues,
            array_agg(settled.id) FILTER (WHERE settled.ended = 'succeeded') AS spared,
            array_agg(settled.id) FILTER (WHERE settled.final) AS ended,
            array_agg(settled.place) AS places, array_agg(settled.state) AS states,
            array_agg(CASE WHEN settled.state = 'queued' THEN settled.queue END) AS filled
        INTO more
        FROM {schema}.holdfast_settle(ids, fences, workers, others, moment) AS settled;
        RETURN QUERY
        SELECT one.place, 'accepted', one.state, one.filled
        FROM unnest(more.places, more.states, more.filled) AS one (place, state, filled);
        done := done || more.done;
        left_queues := left_queues || more.left_queues;
        spared := spared || more.spared;
        ended := ended || more.ended;
        others_places := more.places;
        others_states := more.states;
    END IF;

    IF coalesce(cardinality(done), 0) < cardinality(ids) THEN
        RETURN QUERY
        SELECT
            said.place,
            CASE
                WHEN job.settled_fence = said.fence AND job.settled_by = said.worker THEN 'replayed'
                WHEN job.id IS NULL OR job.state = 'deleted' THEN 'gone'
                WHEN job.fence = said.fence AND job.worker = said.worker AND job.state = 'running' THEN 'busy'
                ELSE 'stale'
            END,
            CASE WHEN job.settled_fence = said.fence AND job.settled_by = said.worker THEN job.settled_state END,
            NULL
        FROM unnest(ids, fences, workers) WITH ORDINALITY AS said (id, fence, worker, place)
        LEFT JOIN LATERAL (SELECT * FROM {schema}.holdfast_jobs AS one WHERE one.id = said.id OFFSET 0) AS job ON true
        WHERE done IS NULL OR said.id <> ALL (done);
        WITH held AS MATERIALIZED (
            SELECT job.ctid FROM {schema}.holdfast_jobs AS job
            WHERE job.id = ANY (ids) AND job.within
            FOR NO KEY UPDATE SKIP LOCKED
        ), written AS (
            UPDATE {schema}.holdfast_jobs AS job SET within = false FROM held WHERE job.ctid = held.ctid
            RETURNING job.id, job.queue
        )
        SELECT array_agg(written.id) AS spared, array_agg(written.queue) AS left_queues INTO more FROM written;
        left_queues := left_queues || more.left_queues;
        spared := spared || more.spared;
        IF more.spared IS NOT NULL THEN -- nobody was told of these in the caller's transaction
            ended := ended || ARRAY(
                SELECT said.id FROM unnest(ids, fences, workers) AS said (id, fence, worker)
                JOIN {schema}.holdfast_jobs AS job ON job.id = said.id
                WHERE said.id = ANY (more.spared) AND job.settled_fence = said.fence AND job.settled_by = said.worker
            );
        END IF;
    END IF;

    IF ended IS NOT NULL AND EXISTS (SELECT FROM {schema}.holdfast_watched) THEN
        ended := {schema}.holdfast_heard(ended);
        RETURN QUERY
        SELECT
            said.place, CASE WHEN said.id = ANY (done) THEN 'accepted' ELSE 'replayed' END,
            coalesce(other.state, 'succeeded'), '!' || said.id
        FROM unnest(ids) WITH ORDINALITY AS said (id, place)
        LEFT JOIN unnest(others_places, others_states) AS other (place, state) ON other.place = said.place
        WHERE said.id = ANY (ended);
    END IF;

    IF spared IS NOT NULL AND EXISTS (SELECT FROM {schema}.holdfast_saved) THEN
        DELETE FROM {schema}.holdfast_saved AS kept WHERE kept.job = ANY (spared);
    END IF;
    IF left_queues IS NOT NULL AND EXISTS (SELECT FROM {schema}.holdfast_left) THEN
        PERFORM {schema}.holdfast_leave(left_queues); -- the last thing: whoever ends jobs meets on these rows
    END IF;
END
$body$;
