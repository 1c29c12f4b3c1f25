-- Deletes the mailboxes of workers that are not there any more.
DELETE FROM holdfast_mail WHERE worker NOT IN (SELECT id FROM holdfast_workers);
