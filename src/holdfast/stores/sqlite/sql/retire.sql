-- Ends a worker's life, once. Parameters: now, now, loss (JSON or NULL), id
UPDATE holdfast_workers SET retired_at = ?, lease_until = ?, loss = ? WHERE id = ? AND retired_at IS NULL;
