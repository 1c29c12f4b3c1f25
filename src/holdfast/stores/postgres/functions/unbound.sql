-- For a transaction that keeps one snapshot (REPEATABLE READ, SERIALIZABLE): whether a bound was set since, it cannot see.
-- But to lock a row, or to meet one in an index, looks at what is there now, and fails with its serialization error
-- (SQLSTATE 40001). All that this does is taken back at once. Parameter: the queues that it sees no bound of
CREATE OR REPLACE FUNCTION {schema}.holdfast_unbound(names text[]) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM {schema}.holdfast_queues AS queue WHERE queue.name = ANY (names) ORDER BY queue.name FOR NO KEY UPDATE;
    INSERT INTO {schema}.holdfast_queues (name, when_full)
    SELECT said.name, 'reject' FROM unnest(names) AS said (name) ORDER BY said.name
    ON CONFLICT (name) DO NOTHING;
    RAISE EXCEPTION USING ERRCODE = 'HF003';
EXCEPTION WHEN SQLSTATE 'HF003' THEN
    NULL;
END
$function$;
