-- What our role may not do with what is ours, as words of GRANT. Parameter: the schema's name.
-- Returns: the role; 'schema', 'tables' or 'functions'; a privilege; the names on which it lacks it.
-- holdfast_meta need only be read, but for `migrate`, which says itself what it needs.
SELECT current_user::text, kind, privilege, array_agg(name ORDER BY name)
FROM (
    SELECT 'schema' AS kind, 'USAGE' AS privilege, nspname::text AS name
    FROM pg_namespace
    WHERE nspname = %(schema)b AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT 'tables', privilege, relname::text
    FROM pg_class
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)b)
        AND relkind = 'r'
        AND starts_with(relname::text, 'holdfast_')
        AND (relname <> 'holdfast_meta' OR privilege = 'SELECT')
        AND NOT has_table_privilege(oid, privilege)
    UNION ALL
    SELECT 'functions', 'EXECUTE', proname::text
    FROM pg_proc
    WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)b)
        AND starts_with(proname::text, 'holdfast_')
        AND NOT has_function_privilege(oid, 'EXECUTE')
) AS lacking
GROUP BY kind, privilege
ORDER BY kind DESC, array_position(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], privilege)
