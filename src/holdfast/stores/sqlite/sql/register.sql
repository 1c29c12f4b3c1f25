-- Opens a worker's life; one that is there already stays as it is.
-- Parameters: id, supervisor, facts (JSON), now, now, now, lease
INSERT INTO holdfast_workers (id, supervisor, facts, beat_at, steady_since, lease_until)
VALUES (?, ?, ?, ?, ?, ? + ?)
ON CONFLICT (id) DO NOTHING;
