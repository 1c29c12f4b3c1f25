-- Renews the leases of workers that are not retired.
-- Parameters: now, lease, now, now, now, now, lease, ids (a JSON array)
UPDATE holdfast_workers
SET
    steady_since = CASE WHEN 2 * (? - beat_at) > ? OR beat_at > ? THEN ? ELSE steady_since END,
    beat_at = ?,
    lease_until = ? + ?
WHERE id IN (SELECT value FROM json_each(?)) AND retired_at IS NULL;
