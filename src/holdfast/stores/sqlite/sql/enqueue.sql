-- Stores jobs; those whose id is taken already are passed over and not touched.
-- Each row: id, task, queue, line, state, priority, alone, born_alone, enqueued_at, due_at, terms, tags, payload
INSERT INTO holdfast_jobs
    (id, task, queue, line, state, priority, alone, born_alone, enqueued_at, due_at, terms, tags, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;
