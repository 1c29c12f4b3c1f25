-- What a producer may say of a job besides: headers, a JSON object of texts ('': none), and a unique key.
ALTER TABLE holdfast_jobs ADD COLUMN headers TEXT NOT NULL DEFAULT '';

ALTER TABLE holdfast_jobs ADD COLUMN unique_key TEXT;

ALTER TABLE holdfast_jobs ADD COLUMN unique_until TEXT; -- started, finished

ALTER TABLE holdfast_jobs ADD COLUMN unique_hold INTEGER NOT NULL DEFAULT 0; -- so long after the end the key is held

ALTER TABLE holdfast_jobs ADD COLUMN unique_clash TEXT; -- return, raise, replace

ALTER TABLE holdfast_jobs ADD COLUMN unique_over INTEGER NOT NULL DEFAULT 0; -- 1: that time was over, and another took it

ALTER TABLE holdfast_jobs ADD COLUMN content TEXT; -- digest of the job as it was enqueued, once its payload was replaced

-- Whoever is in this index holds its key: nobody writes it down, so nobody can forget to.
CREATE UNIQUE INDEX holdfast_keys ON holdfast_jobs (queue, unique_key)
    WHERE unique_key IS NOT NULL
    AND (unique_until = 'finished' OR started_at IS NULL)
    AND (
        state = 'queued' OR state = 'running' OR state = 'scheduled' OR state = 'waiting'
        OR (unique_hold > 0 AND unique_over = 0 AND state <> 'deleted')
    );

-- What is said of queues, and where there is a bound, how many jobs took a place and how many gave one back. Those are
-- counted by triggers (queues.py makes them with the first bound and drops them with the last).
CREATE TABLE holdfast_queues (
    name TEXT PRIMARY KEY,
    declared TEXT, -- by code: [max_size, when_full, block_timeout]
    edited TEXT, -- by an operator, likewise: goes before what is declared
    max_size INTEGER, -- what is in effect; NULL: no bound
    when_full TEXT NOT NULL,
    block_timeout INTEGER,
    admitted INTEGER NOT NULL DEFAULT 0,
    left INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0 -- jobs, since the queue was declared
) STRICT, WITHOUT ROWID;

CREATE INDEX holdfast_bounded ON holdfast_queues (name) WHERE max_size IS NOT NULL;

-- What handlers say of themselves, by holdfast_jobs.seq; in tables of their own, so that no job's row is written.
CREATE TABLE holdfast_notes (
    job INTEGER PRIMARY KEY,
    fence INTEGER NOT NULL, -- of the claim that said so
    progress REAL, -- 0 to 1
    text TEXT
) STRICT;

CREATE TABLE holdfast_saved (
    job INTEGER PRIMARY KEY,
    saved BLOB NOT NULL -- for the next attempt
) STRICT;

-- The newest lines of a job's own log, numbered from 1.
CREATE TABLE holdfast_log (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;

-- Older code would run jobs without their headers and fill queues past their bounds.
UPDATE holdfast_meta SET version = 2, oldest_code = 2;
