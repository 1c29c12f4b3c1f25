-- One row: which version the tables are of, the oldest code that can serve them, the length of a lease in ms.
CREATE TABLE holdfast_meta (
    version INTEGER NOT NULL,
    oldest_code INTEGER NOT NULL,
    lease INTEGER NOT NULL
) STRICT;

-- Times are milliseconds since 1970 in UTC, lengths of time milliseconds, ids lower-case UUIDs.
-- payload and result are JSON as bytes: SELECT CAST(payload AS TEXT) shows them. They stand last because a
-- column behind a long one is found only by walking all of it.
CREATE TABLE holdfast_jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    line TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    life INTEGER NOT NULL DEFAULT 1,
    attempt INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    releases INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    alone INTEGER NOT NULL, -- now
    born_alone INTEGER NOT NULL, -- as the producer wrote it
    enqueued_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    prune_at INTEGER, -- when a finished job may be deleted; NULL: not before someone decides
    worker TEXT, -- who holds it; set while it runs
    ticket INTEGER, -- of the claim that took it; NULL when a sweeper took it over
    cancel_requested_at INTEGER,
    cancel_fence INTEGER, -- the claim that is to be told of the cancel
    settled_fence INTEGER,
    settled_by TEXT,
    settled_state TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, -- rows written to holdfast_attempts, also those not kept any more
    terms TEXT NOT NULL, -- [max_attempts, base_delay, max_delay, jitter, max_crashes, timeout, keep]
    tags TEXT NOT NULL,
    loss TEXT, -- [cause, on_purpose, begun, culprit, company, stack, overdue] of the run that was lost with its worker
    reason TEXT NOT NULL DEFAULT '',
    payload BLOB NOT NULL,
    result BLOB
) STRICT;

CREATE INDEX holdfast_ready ON holdfast_jobs (queue, priority DESC, due_at, id) WHERE state = 'queued';

CREATE INDEX holdfast_scheduled ON holdfast_jobs (due_at, id) WHERE state = 'scheduled';

CREATE INDEX holdfast_held ON holdfast_jobs (worker, ticket) WHERE state = 'running';

CREATE INDEX holdfast_flagged ON holdfast_jobs (worker) WHERE cancel_fence IS NOT NULL;

CREATE INDEX holdfast_prunable ON holdfast_jobs (prune_at) WHERE prune_at IS NOT NULL;

-- For listings: all, by task, by queue, and the states that a listing of all would search long for.
CREATE INDEX holdfast_listing ON holdfast_jobs (enqueued_at DESC, id DESC);

CREATE INDEX holdfast_by_task ON holdfast_jobs (task, enqueued_at);

CREATE INDEX holdfast_by_queue ON holdfast_jobs (queue, enqueued_at);

CREATE INDEX holdfast_by_state ON holdfast_jobs (state, enqueued_at)
    WHERE state = 'dead' OR state = 'cancelled' OR state = 'scheduled';

-- The history of jobs that did not simply succeed: the first and the newest attempts, numbered from 1.
CREATE TABLE holdfast_attempts (
    job INTEGER NOT NULL, -- holdfast_jobs.seq
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    ended TEXT NOT NULL,
    reason TEXT NOT NULL,
    error_type TEXT,
    error_message TEXT,
    error_traceback TEXT,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE holdfast_workers (
    id TEXT PRIMARY KEY,
    supervisor TEXT,
    facts TEXT NOT NULL, -- for display
    beat_at INTEGER NOT NULL,
    steady_since INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    ticket INTEGER NOT NULL DEFAULT 0, -- the last one used
    turn TEXT NOT NULL DEFAULT '', -- the queue that its last claim began with
    retired_at INTEGER,
    loss TEXT -- what is written on the jobs that it still holds
) STRICT, WITHOUT ROWID;

-- "lost" lines only: a "cancel" line is read off the job itself (cancel_fence).
CREATE TABLE holdfast_mail (
    worker TEXT NOT NULL,
    job TEXT NOT NULL,
    fence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (worker, job, fence, kind)
) STRICT, WITHOUT ROWID;

INSERT INTO holdfast_meta (version, oldest_code, lease) VALUES (1, 1, 15000);
