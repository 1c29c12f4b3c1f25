-- Stores a schedule as it was changed; its ticks and counts stay.
-- Parameters: name, queue, next_at, paused_at, paused_until, pause_reason, revision, text
INSERT INTO holdfast_schedules (name, queue, next_at, paused_at, paused_until, pause_reason, revision, text)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET
    queue = excluded.queue, next_at = excluded.next_at, paused_at = excluded.paused_at,
    paused_until = excluded.paused_until, pause_reason = excluded.pause_reason, revision = excluded.revision,
    text = excluded.text;
