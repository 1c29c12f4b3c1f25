-- Writes ended attempts to the history.
-- Each row: job (seq), number, attempt, fence, worker, started_at, ended_at, ended, reason, the error's type, message
-- and traceback (NULL: no error)
INSERT INTO holdfast_attempts
    (job, number, attempt, fence, worker, started_at, ended_at, ended, reason,
    error_type, error_message, error_traceback)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
