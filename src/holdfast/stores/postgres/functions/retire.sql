-- Ends a worker's life, once; what is said of single jobs is written on them by whoever takes them over.
-- Parameters: worker, loss (JSON), losses of single jobs (a JSON object, see holdfast_workers.losses), shift
-- Returns whether it ended just now.
CREATE OR REPLACE FUNCTION {schema}.holdfast_retire(leaver uuid, of_all text, of_single text, shift bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp -- not the caller's
SET enable_seqscan = off
SET jit = off
AS $body$
DECLARE
    moment bigint := {schema}.holdfast_now(shift);
BEGIN
    UPDATE {schema}.holdfast_workers AS worker
    SET retired_at = moment, lease_until = moment, loss = of_all, losses = of_single
    WHERE worker.id = leaver AND worker.retired_at IS NULL;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM {schema}.holdfast_mail AS line WHERE line.worker = leaver;
    PERFORM {schema}.holdfast_give_back(moment, leaver);
    RETURN true;
END
$body$;
