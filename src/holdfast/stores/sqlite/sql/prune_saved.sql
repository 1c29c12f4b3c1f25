-- Deletes what was saved for the next attempt of some jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_saved WHERE job IN (SELECT value FROM json_each(?));
