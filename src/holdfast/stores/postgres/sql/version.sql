-- Returns: the version of the tables; the oldest code that can serve them; the length of a lease in ms; which store
-- this is; a digest of the functions.
SELECT version, oldest_code, lease, store, functions FROM {schema}.holdfast_meta
