-- The number of the newest line of some jobs' logs. Parameter: their seqs, a JSON array. Returns: job (seq), number
SELECT wanted.value, (SELECT max(number) FROM holdfast_log WHERE job = wanted.value) FROM json_each(?) AS wanted;
