-- Drops attempts from the middle of histories. Each row: job (seq), number
DELETE FROM holdfast_attempts WHERE (job, number) IN (VALUES (?, ?));
