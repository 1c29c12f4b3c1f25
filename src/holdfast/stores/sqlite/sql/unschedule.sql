-- Deletes a schedule. Parameters: its name, its revision
DELETE FROM holdfast_schedules WHERE name = ? AND revision = ?;
