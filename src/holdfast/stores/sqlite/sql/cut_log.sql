-- Drops the oldest lines of a log. Parameters: job (seq), the number of the last that goes
DELETE FROM holdfast_log WHERE job = ? AND number <= ?;
