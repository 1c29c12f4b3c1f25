-- Appends lines to logs. Each row: job (seq), number, at, fence, text
INSERT INTO holdfast_log (job, number, at, fence, text) VALUES (?, ?, ?, ?, ?);
