-- Ends a queue's pause. Parameter: its name
DELETE FROM holdfast_pauses WHERE queue = ?;
