-- Writes how full queues were. Each row: length, start, queue, depth, oldest
INSERT OR REPLACE INTO holdfast_levels (length, start, queue, depth, oldest) VALUES (?, ?, ?, ?, ?);
