-- What our role may not do with what is ours, as words of GRANT. Parameter: the schema's name.
-- Returns: the role; a privilege; the names on which it lacks it.
SELECT current_user::text, privilege, string_agg(name, ', ' ORDER BY name)
FROM (
    SELECT 'USAGE' AS privilege, 'schema ' || quote_ident(nspname) AS name
    FROM pg_namespace
    WHERE nspname = %(schema)b AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT privilege, relname::text
    FROM pg_class
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
    WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)b)
        AND relkind = 'r'
        AND starts_with(relname::text, 'holdfast_')
        AND NOT has_table_privilege(oid, privilege)
    UNION ALL
    SELECT 'EXECUTE', 'function ' || proname
    FROM pg_proc
    WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)b)
        AND starts_with(proname::text, 'holdfast_')
        AND NOT has_function_privilege(oid, 'EXECUTE')
) AS lacking
GROUP BY privilege
ORDER BY privilege
