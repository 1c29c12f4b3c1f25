-- Schedules, by name. Parameters: shift; names, or NULL for all, twice
-- Returns one row at least: now, name (NULL: there is none), queue, text, next_at, paused since, until, why, revision,
-- ticks (JSON: see migrations), made, skipped, missed.
SELECT
    clock.moment, entry.name, entry.queue, entry.text, entry.next_at, entry.paused_since, entry.paused_until,
    entry.paused_why, entry.revision, entry.ticks::text, entry.made, entry.skipped, entry.missed
FROM (SELECT {schema}.holdfast_now(%b) AS moment) AS clock
LEFT JOIN {schema}.holdfast_schedules AS entry ON %b::text[] IS NULL OR entry.name = ANY (%b::text[])
ORDER BY entry.name;
