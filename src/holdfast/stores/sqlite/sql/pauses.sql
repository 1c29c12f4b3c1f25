-- The pauses of queues that are not over. Parameter: now. Returns: queue, since, until, reason
SELECT queue, since, until, reason FROM holdfast_pauses WHERE coalesce(until > ?, 1);
