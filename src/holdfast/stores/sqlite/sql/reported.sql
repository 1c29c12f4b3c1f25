-- The number of a worker's last report to the history. Parameter: its id
SELECT reported FROM holdfast_workers WHERE id = ? AND retired_at IS NULL;
