-- Jobs were stored in a queue that has a bound. Parameters: how many, its name
UPDATE holdfast_queues SET admitted = admitted + ? WHERE name = ?;
