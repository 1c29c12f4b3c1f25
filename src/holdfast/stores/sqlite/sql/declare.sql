-- Writes what is said of a queue.
-- Parameters: name, declared, edited (JSON), and what is in effect: max_size, when_full, block_timeout, weight
INSERT INTO holdfast_queues (name, declared, edited, max_size, when_full, block_timeout, weight)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE
SET
    declared = excluded.declared, edited = excluded.edited,
    max_size = excluded.max_size, when_full = excluded.when_full, block_timeout = excluded.block_timeout,
    weight = excluded.weight;
