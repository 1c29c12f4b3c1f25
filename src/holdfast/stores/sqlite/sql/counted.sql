-- What bounds need, and what is there of it. Returns: whether a queue has a bound; whether a full one drops its oldest
-- job; whether jobs are counted; whether there is an index of the oldest
SELECT
    EXISTS (SELECT 1 FROM holdfast_queues WHERE max_size IS NOT NULL),
    EXISTS (SELECT 1 FROM holdfast_queues WHERE max_size IS NOT NULL AND when_full = 'drop_oldest'),
    EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'trigger' AND name = 'holdfast_count_ended'),
    EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = 'holdfast_oldest');
