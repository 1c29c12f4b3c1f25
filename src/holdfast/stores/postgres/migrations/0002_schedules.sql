-- apart
-- Schedules, pauses, weights, times that end a job, fingerprints, the history of each minute, and who waits for a result.
-- Each table is changed in a transaction of its own, and no lock is waited for long: whoever comes later stands behind.
BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE {schema}.holdfast_jobs
    ADD COLUMN IF NOT EXISTS expires_at bigint, -- not started in this life by then: cancelled
    ADD COLUMN IF NOT EXISTS deadline_at bigint, -- not finished by then: dead
    ADD COLUMN IF NOT EXISTS fingerprint text COLLATE "C"; -- of the death that its state tells of
COMMIT;

BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE {schema}.holdfast_queues
    ADD COLUMN IF NOT EXISTS weight bigint NOT NULL DEFAULT 1; -- in effect; the fourth of what is declared and edited
COMMIT;

BEGIN;
SET LOCAL lock_timeout = '2s';
ALTER TABLE {schema}.holdfast_workers
    ADD COLUMN IF NOT EXISTS reported bigint NOT NULL DEFAULT 0; -- the number of its last report to the history
COMMIT;

-- Queues of which nothing is claimed. A row whose time is over says nothing.
CREATE TABLE IF NOT EXISTS {schema}.holdfast_pauses (
    queue text COLLATE "C" PRIMARY KEY,
    since bigint NOT NULL,
    until bigint, -- NULL: until somebody resumes it
    reason text NOT NULL
);

-- Each says what it does in `text`, which Holdfast alone reads.
CREATE TABLE IF NOT EXISTS {schema}.holdfast_schedules (
    name text COLLATE "C" PRIMARY KEY,
    queue text COLLATE "C" NOT NULL, -- that its jobs go to
    text text NOT NULL,
    next_at bigint, -- its next tick; NULL: it has none
    paused_since bigint,
    paused_until bigint,
    paused_why text,
    revision bigint NOT NULL, -- grows with each change and each tick
    ticks jsonb NOT NULL DEFAULT '[]', -- the newest: [due, at, outcome, job, reason, count]
    made bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    missed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE INDEX IF NOT EXISTS holdfast_due ON {schema}.holdfast_schedules (next_at, name) WHERE paused_since IS NULL;

CREATE INDEX IF NOT EXISTS holdfast_due_again ON {schema}.holdfast_schedules (paused_until)
    WHERE paused_until IS NOT NULL;

-- The history, minute by minute and in steps of ten: attempts of a queue and task that ended alike, and how long they
-- ran and had waited, in buckets.
CREATE TABLE IF NOT EXISTS {schema}.holdfast_minutes (
    tens boolean NOT NULL,
    start bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    ran bigint[] NOT NULL,
    waited bigint[] NOT NULL,
    PRIMARY KEY (tens, start, queue, task, outcome)
) WITH (fillfactor = 70);

-- And how full the queues were.
CREATE TABLE IF NOT EXISTS {schema}.holdfast_levels (
    tens boolean NOT NULL,
    start bigint NOT NULL,
    queue text COLLATE "C" NOT NULL,
    depth bigint NOT NULL,
    oldest bigint NOT NULL,
    PRIMARY KEY (tens, start, queue)
) WITH (fillfactor = 70);

-- Jobs for whose end somebody waits. Nearly always empty: whoever ends jobs looks here first.
CREATE TABLE IF NOT EXISTS {schema}.holdfast_watched (
    job uuid PRIMARY KEY,
    until bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Who may use the jobs may use what belongs to them.
DO $body$
DECLARE
    given record;
    name text;
BEGIN
    FOR given IN
        SELECT grantee.rolname, granted.grantee, granted.privilege_type
        FROM pg_class AS class
        CROSS JOIN LATERAL aclexplode(class.relacl) AS granted
        LEFT JOIN pg_roles AS grantee ON grantee.oid = granted.grantee
        WHERE class.oid = $name${schema}.holdfast_jobs$name$::regclass AND granted.grantee <> class.relowner
            AND granted.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        FOREACH name IN ARRAY ARRAY['pauses', 'schedules', 'minutes', 'levels', 'watched'] LOOP
            EXECUTE format(
                'GRANT %s ON %s_%s TO %s', given.privilege_type, $name${schema}.holdfast$name$, name,
                CASE WHEN given.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(given.rolname) END
            );
        END LOOP;
    END LOOP;
END
$body$;

-- Those scheduled or queued whose time will be over, by when it is.
DROP INDEX CONCURRENTLY IF EXISTS {schema}.holdfast_over;
CREATE INDEX CONCURRENTLY holdfast_over
    ON {schema}.holdfast_jobs (least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END), id)
    WHERE least(deadline_at, CASE WHEN started_at IS NULL THEN expires_at END) IS NOT NULL -- first: it spares the rest
    AND state IN ('queued', 'scheduled');

DROP INDEX CONCURRENTLY IF EXISTS {schema}.holdfast_deaths;
CREATE INDEX CONCURRENTLY holdfast_deaths ON {schema}.holdfast_jobs (fingerprint, enqueued_at)
    WHERE fingerprint IS NOT NULL;

-- Only tables that all the others have been made for are of this version.
UPDATE {schema}.holdfast_meta SET version = 2;
