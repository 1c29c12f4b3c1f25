-- Which session's open transaction holds a job's row, or the row of its queue. Parameters: the job's id, twice
-- Returns: its pid; its application_name, state and how long its transaction is open in s, '' and 0 where not allowed
-- A row's xmax is the transaction that locked it last; it still holds the lock while its number is in pg_locks.
SELECT
    locked.pid, coalesce(session.application_name, ''), coalesce(session.state, ''),
    coalesce(floor(extract(epoch FROM clock_timestamp() - session.xact_start)), 0)::bigint
FROM (
    SELECT job.xmax AS taker FROM {schema}.holdfast_jobs AS job WHERE job.id = %b
    UNION ALL
    SELECT queue.xmax FROM {schema}.holdfast_queues AS queue
    JOIN {schema}.holdfast_jobs AS job ON job.queue = queue.name WHERE job.id = %b
) AS held
JOIN pg_locks AS locked ON locked.locktype = 'transactionid' AND locked.transactionid = held.taker AND locked.granted
LEFT JOIN pg_stat_activity AS session ON session.pid = locked.pid
WHERE EXISTS (
    SELECT 1 FROM pg_locks AS used
    WHERE used.pid = locked.pid AND used.relation IN (
        $name${schema}.holdfast_jobs$name$::regclass, $name${schema}.holdfast_queues$name$::regclass
    )
)
LIMIT 1;
