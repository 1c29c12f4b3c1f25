-- How often a schedule was changed. Parameter: its name
SELECT revision FROM holdfast_schedules WHERE name = ?;
