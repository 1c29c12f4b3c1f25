-- For a transaction that keeps one snapshot (REPEATABLE READ, SERIALIZABLE): whether a place is reserved for the job
-- that it cannot see. To meet a row in an index looks at what is there now, and fails where the snapshot does not show
-- it. From then on the reservation stays until the transaction has ended (see holdfast_expire).
CREATE OR REPLACE FUNCTION {schema}.holdfast_hidden(job_id uuid) RETURNS boolean
LANGUAGE plpgsql
AS $function$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock_shared({schema}.holdfast_lock_of(job_id));  -- before the look: from now on it stays
    BEGIN
        INSERT INTO {schema}.holdfast_reservations (job, queue, until) VALUES (job_id, '', 0) ON CONFLICT (job) DO NOTHING;
        RAISE EXCEPTION USING ERRCODE = 'HF003';  -- which takes it back
    EXCEPTION
        WHEN SQLSTATE 'HF003' THEN
            RETURN false;
        WHEN serialization_failure THEN
            RETURN true;
    END;
END
$function$;
