-- The functions of ours that are there, by name. Parameter: the schema's name.
SELECT proname::text FROM pg_proc
WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %b) AND starts_with(proname::text, 'holdfast_')
