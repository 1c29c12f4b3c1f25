-- The number of the newest job; a job with a greater one is newer than this moment.
SELECT coalesce(max(seq), 0) FROM holdfast_jobs;
