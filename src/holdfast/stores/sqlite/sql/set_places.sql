-- Begins to count the places of a queue. Parameters: how many are taken now, its name
UPDATE holdfast_queues SET admitted = ?, left = 0 WHERE name = ?;
