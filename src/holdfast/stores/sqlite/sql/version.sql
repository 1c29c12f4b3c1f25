-- Returns: version, oldest_code
SELECT version, oldest_code FROM holdfast_meta;
