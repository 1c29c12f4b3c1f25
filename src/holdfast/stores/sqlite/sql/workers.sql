-- All workers. Returns: id, supervisor, facts (JSON), beat_at, steady_since, lease_until, retired_at
SELECT id, supervisor, facts, beat_at, steady_since, lease_until, retired_at FROM holdfast_workers ORDER BY id;
