-- A worker's row. Parameter: its id
-- Returns: lease_until, retired_at, ticket, turn, beat_at, steady_since
SELECT lease_until, retired_at, ticket, turn, beat_at, steady_since FROM holdfast_workers WHERE id = ?;
