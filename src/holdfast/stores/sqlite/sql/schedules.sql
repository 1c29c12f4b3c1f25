-- Schedules, by name. Parameter: their names, a JSON array, or NULL for all
-- Returns: name, queue, text, next_at, paused_at, paused_until, pause_reason, revision, ticks (JSON), made, skipped,
-- missed
SELECT
    name, queue, text, next_at, paused_at, paused_until, pause_reason, revision, ticks, made, skipped, missed
FROM holdfast_schedules
WHERE ?1 IS NULL OR name IN (SELECT value FROM json_each(?1))
ORDER BY name;
