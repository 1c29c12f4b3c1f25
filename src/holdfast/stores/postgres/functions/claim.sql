-- What code of version 1 calls: holdfast_claim_2 without shares, and without deadlines in what it returns.
CREATE OR REPLACE FUNCTION {schema}.holdfast_claim(
    claimer uuid, number bigint, queues text[], most bigint, shift bigint
) RETURNS TABLE (
    id uuid, fence bigint, task text, queue text, payload bytea, terms text, priority integer, attempt integer,
    releases integer, losses integer, crashes integer, alone boolean, enqueued_at bigint, due_at bigint,
    started_at bigint, loss text, headers text, saved bytea, refused text
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
AS $body$
BEGIN
    RETURN QUERY
    SELECT
        job.id, job.fence, job.task, job.queue, job.payload, job.terms, job.priority, job.attempt, job.releases,
        job.losses, job.crashes, job.alone, job.enqueued_at, job.due_at, job.started_at, job.loss, job.headers,
        job.saved, job.refused
    FROM {schema}.holdfast_claim_2(claimer, number, queues, most, NULL, NULL, shift) AS job;
END
$body$;
