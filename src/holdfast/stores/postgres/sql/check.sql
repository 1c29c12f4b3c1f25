-- What there is at a place, before anything of ours is touched. Parameter: the schema's name.
-- Returns: the database's encoding; whether the server only follows another; whether it takes no writes; our role;
-- whether the schema is there; whether we may use it; how many tables in it have names of ours; whether holdfast_meta
-- is one; what we may not do with it and with the jobs, as words of GRANT.
SELECT
    (SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()),
    pg_is_in_recovery(),
    current_setting('transaction_read_only') = 'on',
    current_user::text,
    place.oid IS NOT NULL,
    coalesce(has_schema_privilege(place.oid, 'USAGE'), false),
    (SELECT count(*) FROM pg_class WHERE relnamespace = place.oid AND relkind = 'r' AND starts_with(relname::text, 'holdfast_')),
    EXISTS (SELECT FROM pg_class WHERE relnamespace = place.oid AND relname = 'holdfast_meta'),
    ARRAY(
        SELECT privilege || ' on ' || relname
        FROM (VALUES ('holdfast_meta', 'SELECT'), ('holdfast_jobs', 'SELECT')) AS needed (name, privilege)
        JOIN pg_class ON relnamespace = place.oid AND relname = needed.name
        WHERE NOT has_table_privilege(pg_class.oid, privilege)
    )
FROM (SELECT %b::text AS name) AS asked
LEFT JOIN pg_namespace AS place ON place.nspname = asked.name
