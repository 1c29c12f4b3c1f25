-- Deletes what mailboxes say of some jobs. Parameter: their seqs, a JSON array
DELETE FROM holdfast_mail
WHERE job IN (SELECT id FROM holdfast_jobs WHERE seq IN (SELECT value FROM json_each(?)));
