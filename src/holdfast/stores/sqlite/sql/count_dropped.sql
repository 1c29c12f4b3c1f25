-- One more job of a queue was dropped. Parameter: its name
UPDATE holdfast_queues SET dropped = dropped + 1 WHERE name = ?;
