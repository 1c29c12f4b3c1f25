-- How full queues were. Parameters: length, since, before. Returns: start, queue, depth, oldest
SELECT start, queue, depth, oldest FROM holdfast_levels WHERE length = ? AND start >= ? AND start < ?
ORDER BY start, queue;
