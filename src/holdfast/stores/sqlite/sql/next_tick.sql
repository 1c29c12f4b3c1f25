-- When the next tick is due that is not due yet: of schedules that are not paused, or from the end of their pause on.
-- Parameter: now
SELECT min(at) FROM (
    SELECT min(next_at) AS at FROM holdfast_schedules INDEXED BY holdfast_due
    WHERE next_at IS NOT NULL AND next_at > ?1 AND (paused_at IS NULL OR coalesce(paused_until <= ?1, 0))
    UNION ALL
    SELECT min(max(next_at, paused_until)) FROM holdfast_schedules
    WHERE next_at IS NOT NULL AND paused_at IS NOT NULL AND paused_until > ?1
);
