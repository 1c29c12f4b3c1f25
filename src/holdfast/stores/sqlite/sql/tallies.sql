-- Tallies of the history. Parameters: length, since, before
-- Returns: start, queue, task, outcome, count, ran and waited (JSON)
SELECT start, queue, task, outcome, count, ran, waited FROM holdfast_tallies
WHERE length = ? AND start >= ? AND start < ?
ORDER BY start, queue, task, outcome;
