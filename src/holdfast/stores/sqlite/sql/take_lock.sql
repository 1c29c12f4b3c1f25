-- Changes nothing, but takes the write lock; a connection that begins transactions by itself begins one for it.
UPDATE holdfast_meta SET lease = lease WHERE 0;
