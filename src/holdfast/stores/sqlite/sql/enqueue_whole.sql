-- Stores jobs with all that a producer may say; those whose id or unique key is taken are passed over and not touched.
-- Each row: as for enqueue.sql, then headers, unique_key, unique_until, unique_hold, unique_clash, expires_at,
-- deadline_at
INSERT INTO holdfast_jobs
    (id, task, queue, line, state, priority, alone, born_alone, enqueued_at, due_at, terms, tags, payload,
    headers, unique_key, unique_until, unique_hold, unique_clash, expires_at, deadline_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;
