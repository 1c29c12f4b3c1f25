-- Writes what the next attempt shall find. Each row: job (seq), saved
INSERT INTO holdfast_saved (job, saved) VALUES (?, ?)
ON CONFLICT (job) DO UPDATE SET saved = excluded.saved;
