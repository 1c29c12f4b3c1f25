-- Schedules whose next tick is due, the longest overdue first. Parameters: now, limit
-- Returns what schedules.sql does, but no ticks.
SELECT
    name, queue, text, next_at, paused_at, paused_until, pause_reason, revision, '[]', made, skipped, missed
FROM holdfast_schedules INDEXED BY holdfast_due
WHERE next_at IS NOT NULL AND next_at <= ?1 AND (paused_at IS NULL OR coalesce(paused_until <= ?1, 0))
ORDER BY next_at, name
LIMIT ?2;
