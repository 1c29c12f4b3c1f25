-- When the next scheduled job is due.
SELECT due_at FROM holdfast_jobs INDEXED BY holdfast_scheduled
WHERE state = 'scheduled'
ORDER BY due_at
LIMIT 1;
