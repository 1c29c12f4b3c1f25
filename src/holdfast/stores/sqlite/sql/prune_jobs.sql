-- Deletes jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_jobs WHERE seq IN (SELECT value FROM json_each(?));
