-- The file behind a connection, as bytes: a caller's text_factory does not see them.
SELECT CAST(file AS BLOB) FROM pragma_database_list WHERE name = 'main';
