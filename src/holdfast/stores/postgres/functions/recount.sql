-- Counts the places of a queue anew; its row must be locked by the caller. Returns how many are taken.
--
-- What is given back is counted in the same snapshot as the jobs: both change in one commit, so nobody who finishes is
-- waited for.
--
-- Where the bound is new, others may have enqueued without a look at it, and be under way still. Those who come after
-- it count anew until these have ended: `unsettled` is a transaction id that is newer than all of theirs, once one who
-- saw the bound has drawn it (holdfast_put draws its own before it looks). Whoever has looked also holds a lock on the
-- table of queues, so that others' long transactions are not waited for, nor those of other databases.
CREATE OR REPLACE FUNCTION {schema}.holdfast_recount(queue_name text, moment bigint) RETURNS bigint
LANGUAGE plpgsql
AS $function$
DECLARE
    taken bigint;
    given bigint;
    horizon xid8;
    mark xid8;
    drawn bigint;
    own bigint := pg_current_xact_id()::text::bigint;
    settled boolean := false;
BEGIN
    -- Before the jobs are counted: what these have stored is there to be seen before their locks are gone. (Where one
    -- snapshot is kept, it may be older.)
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        SELECT NOT EXISTS (
            SELECT 1
            FROM pg_locks AS seen
            JOIN pg_locks AS running ON running.virtualtransaction = seen.virtualtransaction
            WHERE seen.locktype = 'relation' AND seen.relation = queue.tableoid
                AND seen.database = (SELECT here.oid FROM pg_database AS here WHERE here.datname = current_database())
                AND running.locktype = 'transactionid' AND running.mode = 'ExclusiveLock'
                AND age(running.transactionid) > age(queue.unsettled::xid)
        )
        INTO settled
        FROM {schema}.holdfast_queues AS queue
        WHERE queue.name = queue_name AND queue.unsettled < '18446744073709551615'::xid8;
    END IF;
    PERFORM {schema}.holdfast_expire(queue_name, moment);
    SELECT
        -- One index for each, whatever the planner believes of the queue; `within`: the end is written, the place taken.
        (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'queued' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'scheduled' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.state = 'running' AND job.queue = queue_name)
        + (SELECT count(*) FROM {schema}.holdfast_jobs AS job WHERE job.within AND job.queue = queue_name)
        + (
            SELECT count(*) FROM {schema}.holdfast_reservations AS place
            WHERE place.queue = queue_name
            AND NOT EXISTS (SELECT 1 FROM {schema}.holdfast_jobs AS job WHERE job.id = place.job)
        ),
        coalesce((SELECT gone.places FROM {schema}.holdfast_left AS gone WHERE gone.queue = queue_name), 0),
        pg_snapshot_xmin(pg_current_snapshot())
    INTO taken, given, horizon;
    UPDATE {schema}.holdfast_queues AS queue
    SET
        admitted = taken + given,
        counted_at = moment,
        counted_by = pg_current_xact_id(),
        unsettled = CASE WHEN queue.unsettled > horizon AND settled IS NOT TRUE THEN queue.unsettled END
    WHERE queue.name = queue_name
    RETURNING queue.unsettled INTO mark;
    IF mark = '18446744073709551615'::xid8 THEN
        BEGIN  -- a block of its own draws a transaction id of its own
            UPDATE {schema}.holdfast_queues AS queue SET counted_at = moment
            WHERE queue.name = queue_name
            RETURNING queue.xmin::text::bigint INTO drawn;
        EXCEPTION WHEN no_data_found THEN
            RAISE;
        END;
        drawn := own + ((drawn - (own & 4294967295)) & 4294967295);  -- a row shows the lower 32 bits
        UPDATE {schema}.holdfast_queues AS queue SET unsettled = drawn::text::xid8 WHERE queue.name = queue_name;
    END IF;
    RETURN taken;
END
$function$;
