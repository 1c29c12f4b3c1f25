-- Whether one of some jobs has ended, or is not there. Parameter: their ids, a JSON array
SELECT EXISTS (
    SELECT 1 FROM json_each(?) AS wanted
    WHERE NOT EXISTS (SELECT 1 FROM holdfast_jobs WHERE id = wanted.value AND finished_at IS NULL)
);
