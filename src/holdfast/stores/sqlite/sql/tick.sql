-- Moves a schedule on. Parameters: next_at, ticks (JSON), made, skipped, missed, name
UPDATE holdfast_schedules 
SET revision = revision + 1, next_at = ?, ticks = ?, made = ?, skipped = ?, missed = ?
WHERE name = ?;
