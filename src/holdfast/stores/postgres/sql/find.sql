-- A page of a listing, newest first. find.py puts the conditions in place of {conditions}; first parameter: shift,
-- last: limit
-- Returns: now; the kept attempts, oldest first, a JSON array of what columns.attempt_of reads; then what
-- columns.record_of reads
SELECT
    (SELECT {schema}.holdfast_now(%b)),
    (
        SELECT json_agg(
            json_build_array(
                attempt, fence, worker, started_at, ended_at, ended, reason, error_type, error_message, error_traceback
            )
            ORDER BY number
        )::text
        FROM {schema}.holdfast_attempts AS ended WHERE ended.job = job.id
    ),
    job.attempts, job.id, job.task, job.queue, job.line, job.state, job.payload, job.terms, job.priority, job.tags,
    job.life, job.attempt, job.fence, job.releases, job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at,
    job.started_at, job.finished_at, job.worker, job.cancel_requested_at, job.settled_fence, job.settled_by,
    job.settled_state, job.result, job.reason, job.headers, job.unique_key, job.unique_until, job.unique_hold,
    job.unique_clash, job.unique_over,
    (SELECT progress FROM {schema}.holdfast_notes AS note WHERE note.job = job.id AND note.fence = job.fence),
    (SELECT text FROM {schema}.holdfast_notes AS note WHERE note.job = job.id AND note.fence = job.fence),
    job.expires_at, job.deadline_at, coalesce(job.fingerprint, '')
FROM {schema}.holdfast_jobs AS job
WHERE job.state <> 'deleted' AND {conditions}
ORDER BY job.enqueued_at DESC, job.id DESC
LIMIT %b;
