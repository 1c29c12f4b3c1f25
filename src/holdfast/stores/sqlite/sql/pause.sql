-- Pauses a queue. Parameters: its name, since, until, reason
INSERT INTO holdfast_pauses (queue, since, until, reason) VALUES (?, ?, ?, ?)
ON CONFLICT (queue) DO UPDATE SET since = excluded.since, until = excluded.until, reason = excluded.reason;
