-- The moment of an enqueue. Returns: the number of the newest job (one with a greater number is newer than this
-- moment); whether any queue has a bound
SELECT
    coalesce((SELECT max(seq) FROM holdfast_jobs), 0),
    EXISTS (SELECT 1 FROM holdfast_queues INDEXED BY holdfast_bounded WHERE max_size IS NOT NULL);
