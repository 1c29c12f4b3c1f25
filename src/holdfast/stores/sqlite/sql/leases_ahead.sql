-- Whether a lease lies further ahead than its own length. Parameter: now + lease
SELECT EXISTS (SELECT 1 FROM holdfast_workers WHERE retired_at IS NULL AND lease_until > ?);
