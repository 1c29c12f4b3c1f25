-- Begins new lives of jobs whose rows the caller holds. Parameters: their ids; now
CREATE OR REPLACE FUNCTION {schema}.holdfast_revive(ids uuid[], moment bigint) RETURNS void
LANGUAGE sql
SET enable_seqscan = off
AS $function$
    UPDATE {schema}.holdfast_jobs AS job
    SET
        state = 'queued', due_at = moment, life = job.life + 1, attempt = 0, releases = 0, losses = 0, crashes = 0,
        alone = job.born_alone, started_at = NULL, finished_at = NULL, prune_at = NULL, result = NULL, reason = '',
        unique_over = false, expires_at = NULL, deadline_at = NULL, fingerprint = NULL
    WHERE job.id = ANY (ids);
$function$;
