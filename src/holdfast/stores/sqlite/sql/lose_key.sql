-- A finished job loses its unique key, whose time is over, to another. Parameter: seq
UPDATE holdfast_jobs SET unique_over = 1 WHERE seq = ?;
