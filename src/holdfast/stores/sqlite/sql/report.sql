-- Parameters: the number of a report, the worker's id
UPDATE holdfast_workers SET reported = ? WHERE id = ?;
