-- Cuts leases that lie further ahead than their own length. Parameters: now + lease, the same again
UPDATE holdfast_workers SET lease_until = ? WHERE retired_at IS NULL AND lease_until > ?;
