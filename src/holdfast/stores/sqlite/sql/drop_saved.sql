-- Deletes what was saved by those of some jobs that succeeded: there is no next attempt. Parameter: ids, a JSON array
DELETE FROM holdfast_saved WHERE job IN (
    SELECT seq FROM holdfast_jobs WHERE id IN (SELECT value FROM json_each(?)) AND state = 'succeeded'
);
