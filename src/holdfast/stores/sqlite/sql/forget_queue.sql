-- Forgets a queue of which nobody says anything any more. Parameter: its name
DELETE FROM holdfast_queues WHERE name = ?;
