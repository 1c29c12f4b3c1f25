-- The lines in some mailboxes. Parameters: worker ids (a JSON array), the same again
-- Returns: worker, kind, job, fence
SELECT worker, 'cancel', id, fence FROM holdfast_jobs INDEXED BY holdfast_flagged
WHERE cancel_fence IS NOT NULL AND cancel_fence = fence AND state = 'running'
AND worker IN (SELECT value FROM json_each(?))
UNION ALL
SELECT worker, kind, job, fence FROM holdfast_mail
WHERE worker IN (SELECT value FROM json_each(?));
