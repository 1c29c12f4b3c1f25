-- All that is said of queues. Returns: name, max_size, when_full, block_timeout, weight, whether an operator said it,
-- places taken, dropped
SELECT name, max_size, when_full, block_timeout, weight, edited IS NOT NULL, admitted - left, dropped
FROM holdfast_queues;
