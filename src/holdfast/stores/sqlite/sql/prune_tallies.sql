-- Drops what is older than the history is kept. Parameters: length, the start of the oldest that is kept
DELETE FROM holdfast_tallies WHERE length = ? AND start < ?;
