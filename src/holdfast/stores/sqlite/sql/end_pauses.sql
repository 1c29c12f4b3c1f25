-- Forgets the pauses that are over. Parameter: now
DELETE FROM holdfast_pauses WHERE until <= ?;
