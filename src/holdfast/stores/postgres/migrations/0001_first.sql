-- One row: which version the tables are of, the oldest code that can serve them, the length of a lease in ms, which
-- store this is (so that another database is recognised), and a digest of the functions as they were made last.
CREATE TABLE {schema}.holdfast_meta (
    version integer NOT NULL,
    oldest_code integer NOT NULL,
    lease bigint NOT NULL,
    store uuid NOT NULL DEFAULT gen_random_uuid(),
    functions text NOT NULL DEFAULT ''
);

-- Times are milliseconds since 1970 in UTC: to_timestamp(due_at / 1000.0) shows one. Lengths of time are milliseconds.
-- payload and result are JSON as bytes: convert_from(payload, 'UTF8') shows them. Columns of one width stand together,
-- which saves padding.
CREATE TABLE {schema}.holdfast_jobs (
    id uuid PRIMARY KEY,
    worker uuid, -- who holds it; set while it runs
    settled_by uuid,
    enqueued_at bigint NOT NULL,
    due_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    prune_at bigint, -- when a finished job may be deleted; NULL: not before someone decides
    fence bigint NOT NULL DEFAULT 0,
    ticket bigint, -- of the claim that took it; NULL when a sweeper took it over
    cancel_requested_at bigint,
    cancel_fence bigint, -- the claim that is to be told of the cancel
    settled_fence bigint,
    unique_hold bigint NOT NULL DEFAULT 0, -- so long after the end the key is held
    priority integer NOT NULL,
    life integer NOT NULL DEFAULT 1,
    attempt integer NOT NULL DEFAULT 0,
    releases integer NOT NULL DEFAULT 0,
    losses integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0, -- rows written to holdfast_attempts, also those not kept any more
    alone boolean NOT NULL, -- now
    born_alone boolean NOT NULL, -- as the producer wrote it
    unique_over boolean NOT NULL DEFAULT false, -- that time was over, and another took it
    within boolean NOT NULL DEFAULT false, -- settled in a caller's transaction: its place, and what was saved, are still there
    state text COLLATE "C" NOT NULL,
    task text COLLATE "C" NOT NULL,
    queue text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL DEFAULT '',
    terms text NOT NULL, -- [max_attempts, base_delay, max_delay, jitter, max_crashes, timeout, keep]
    tags text[] NOT NULL DEFAULT '{}',
    headers text NOT NULL DEFAULT '', -- a JSON object of texts; '': none
    reason text NOT NULL DEFAULT '',
    settled_state text,
    loss text, -- [cause, on_purpose, begun, culprit, company, stack, overdue] of the run that was lost with its worker
    unique_key text COLLATE "C",
    unique_until text, -- started, finished
    unique_clash text, -- return, raise, replace
    content text, -- digest of the job as it was enqueued, once its payload was replaced
    payload bytea NOT NULL,
    result bytea
) WITH (
    fillfactor = 85, -- a job is written three times in its life
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0 -- a queue's dead rows stand where claims look
);

-- ~priority is in the order of descending priorities, so that a place in a queue is one ascending row.
CREATE INDEX holdfast_ready ON {schema}.holdfast_jobs (queue, (~priority), due_at, id) WHERE state = 'queued';

CREATE INDEX holdfast_scheduled ON {schema}.holdfast_jobs (due_at, id) INCLUDE (queue) WHERE state = 'scheduled';

CREATE INDEX holdfast_held ON {schema}.holdfast_jobs (worker, ticket) WHERE state = 'running';

CREATE INDEX holdfast_flagged ON {schema}.holdfast_jobs (worker) WHERE cancel_fence IS NOT NULL;

CREATE INDEX holdfast_prunable ON {schema}.holdfast_jobs (prune_at) WHERE prune_at IS NOT NULL;

CREATE INDEX holdfast_within ON {schema}.holdfast_jobs (finished_at) WHERE within;

CREATE INDEX holdfast_listing ON {schema}.holdfast_jobs (enqueued_at DESC, id DESC);

-- The states that a listing of all would search long for.
CREATE INDEX holdfast_by_state ON {schema}.holdfast_jobs (state, enqueued_at)
    WHERE state = 'dead' OR state = 'cancelled' OR state = 'scheduled';

-- The oldest job of a queue that was not started: what drop_oldest drops.
CREATE INDEX holdfast_oldest ON {schema}.holdfast_jobs (queue, enqueued_at, id)
    WHERE started_at IS NULL AND state IN ('queued', 'scheduled');

-- Whoever is in this index holds its key: nobody writes it down, so nobody can forget to.
CREATE UNIQUE INDEX holdfast_keys ON {schema}.holdfast_jobs (queue, unique_key)
    WHERE unique_key IS NOT NULL
    AND (unique_until = 'finished' OR started_at IS NULL)
    AND (
        state IN ('queued', 'running', 'scheduled', 'waiting')
        OR (unique_hold > 0 AND NOT unique_over AND state <> 'deleted')
    );

-- The history of jobs that did not simply succeed: the first and the newest attempts, numbered from 1.
CREATE TABLE {schema}.holdfast_attempts (
    job uuid NOT NULL,
    number integer NOT NULL,
    attempt integer NOT NULL,
    fence bigint NOT NULL,
    worker uuid NOT NULL,
    started_at bigint NOT NULL,
    ended_at bigint NOT NULL,
    ended text NOT NULL,
    reason text NOT NULL,
    error_type text,
    error_message text,
    error_traceback text,
    PRIMARY KEY (job, number)
);

-- Written every few seconds by every worker, so rows have room to be written in place.
CREATE TABLE {schema}.holdfast_workers (
    id uuid PRIMARY KEY,
    supervisor uuid,
    facts text NOT NULL, -- JSON, for display
    beat_at bigint NOT NULL,
    steady_since bigint NOT NULL,
    lease_until bigint NOT NULL,
    ticket bigint NOT NULL DEFAULT 0, -- the last one used
    turn text COLLATE "C" NOT NULL DEFAULT '', -- the queue that its last claim began with
    retired_at bigint,
    floors jsonb, -- where its claims begin, see functions/claim.sql
    loss text, -- what is written on the jobs that it still holds
    losses text -- what is written on single ones before that: a JSON object {"<id>:<fence>": loss}
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- "lost" lines only: a "cancel" line is read off the job itself (cancel_fence).
CREATE TABLE {schema}.holdfast_mail (
    worker uuid NOT NULL,
    job uuid NOT NULL,
    fence bigint NOT NULL,
    kind text NOT NULL,
    PRIMARY KEY (worker, job, fence, kind)
);

-- What is said of queues. `admitted` is written, and its row locked, by those who enqueue; what finishing gives back
-- stands in a table of its own, so that no worker waits for a producer.
CREATE TABLE {schema}.holdfast_queues (
    name text COLLATE "C" PRIMARY KEY,
    declared text, -- by code: [max_size, when_full, block_timeout]
    edited text, -- by an operator, likewise: goes before what is declared
    max_size bigint, -- what is in effect; NULL: no bound
    when_full text NOT NULL,
    block_timeout bigint,
    admitted bigint NOT NULL DEFAULT 0, -- places taken since they were counted last
    counted_at bigint NOT NULL DEFAULT 0,
    counted_by xid8, -- the transaction that counted them last
    unsettled xid8, -- transactions older than this may let in jobs without a look at the bound; NULL: none may
    dropped bigint NOT NULL DEFAULT 0 -- jobs, since the queue was declared
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The places that were given back since they were counted last, of queues that have a bound.
CREATE TABLE {schema}.holdfast_left (
    queue text COLLATE "C" PRIMARY KEY,
    places bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Places that were taken for jobs that a caller's own transaction is about to store.
CREATE TABLE {schema}.holdfast_reservations (
    job uuid PRIMARY KEY,
    queue text NOT NULL,
    until bigint NOT NULL
);

-- What handlers say of themselves, in tables of their own, so that no job's row is written.
CREATE TABLE {schema}.holdfast_notes (
    job uuid PRIMARY KEY,
    fence bigint NOT NULL, -- of the claim that said so
    progress double precision, -- 0 to 1
    text text
) WITH (fillfactor = 50);

CREATE TABLE {schema}.holdfast_saved (
    job uuid PRIMARY KEY,
    fence bigint NOT NULL, -- of the claim that saved it: an older one never writes over a newer one's
    saved bytea NOT NULL -- for the next attempt
);

-- The newest lines of a job's own log, numbered in the order in which they came.
CREATE TABLE {schema}.holdfast_log (
    job uuid NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    fence bigint NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (job, number)
);

INSERT INTO {schema}.holdfast_meta (version, oldest_code, lease) VALUES (1, 1, 15000);
