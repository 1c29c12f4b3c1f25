-- Empties a worker's mailbox. Parameter: its id
DELETE FROM holdfast_mail WHERE worker = ?;
