-- Deletes the history of some jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_attempts WHERE job IN (SELECT value FROM json_each(?));
