-- The store's time, in ms; `shift` moves it in tests.
CREATE OR REPLACE FUNCTION {schema}.holdfast_now(shift bigint DEFAULT 0) RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint + shift $$;
