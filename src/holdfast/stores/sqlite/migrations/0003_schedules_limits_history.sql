-- Times of a job beyond which it is not started, or not worked on any more; NULL: none. What its death is told by.
ALTER TABLE holdfast_jobs ADD COLUMN expires_at INTEGER;

ALTER TABLE holdfast_jobs ADD COLUMN deadline_at INTEGER;

ALTER TABLE holdfast_jobs ADD COLUMN fingerprint TEXT NOT NULL DEFAULT ''; -- of a dead job's error

-- The few jobs that have such a time and do not run, by when it is over.
CREATE INDEX holdfast_mortal ON holdfast_jobs (
    (iif(started_at IS NULL, min(coalesce(expires_at, deadline_at), coalesce(deadline_at, expires_at)), deadline_at)), id
)
WHERE (expires_at IS NOT NULL OR deadline_at IS NOT NULL) AND (state = 'queued' OR state = 'scheduled');

ALTER TABLE holdfast_queues ADD COLUMN weight INTEGER NOT NULL DEFAULT 1; -- declared and edited: a fourth element

CREATE TABLE holdfast_pauses (
    queue TEXT PRIMARY KEY,
    since INTEGER NOT NULL,
    until INTEGER, -- NULL: until somebody resumes it
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE holdfast_schedules (
    name TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    next_at INTEGER,
    paused_at INTEGER,
    paused_until INTEGER,
    pause_reason TEXT NOT NULL DEFAULT '',
    revision INTEGER NOT NULL,
    made INTEGER NOT NULL DEFAULT 0, -- ticks that made a job, were skipped, were missed
    skipped INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0,
    ticks TEXT NOT NULL DEFAULT '[]', -- the newest: [due, at, outcome, job, reason, count]
    text TEXT NOT NULL
) STRICT;

CREATE INDEX holdfast_due ON holdfast_schedules (next_at, name) WHERE next_at IS NOT NULL;

-- The history: attempts that ended within a step of `length` ms (a minute, ten minutes) that began at `start`.
CREATE TABLE holdfast_tallies (
    length INTEGER NOT NULL,
    start INTEGER NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    outcome TEXT NOT NULL,
    count INTEGER NOT NULL,
    ran TEXT NOT NULL, -- how many of them by how long they ran, and had waited: arrays of 12
    waited TEXT NOT NULL,
    PRIMARY KEY (length, start, queue, task, outcome)
) STRICT, WITHOUT ROWID;

-- And how full the queues were at most.
CREATE TABLE holdfast_levels (
    length INTEGER NOT NULL,
    start INTEGER NOT NULL,
    queue TEXT NOT NULL,
    depth INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    PRIMARY KEY (length, start, queue)
) STRICT, WITHOUT ROWID;

ALTER TABLE holdfast_workers ADD COLUMN reported INTEGER NOT NULL DEFAULT 0; -- the number of its last report to it

-- Code of version 2 serves these tables too: it knows neither pauses nor such times, and its jobs have none.
UPDATE holdfast_meta SET version = 3;
