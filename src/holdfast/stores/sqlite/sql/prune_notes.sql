-- Deletes the progress of some jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_notes WHERE job IN (SELECT value FROM json_each(?));
