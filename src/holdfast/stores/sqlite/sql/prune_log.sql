-- Deletes the log lines of some jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_log WHERE job IN (SELECT value FROM json_each(?));
