-- Writes tallies. Each row: length, start, queue, task, outcome, count, ran and waited (JSON)
INSERT OR REPLACE INTO holdfast_tallies (length, start, queue, task, outcome, count, ran, waited)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);
