-- How often a schedule was changed, or moved on. Parameter: its name
SELECT revision FROM holdfast_schedules WHERE name = ?;
