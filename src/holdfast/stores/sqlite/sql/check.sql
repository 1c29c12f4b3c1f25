-- What of Holdfast's is in the file. Returns: the number of its tables, whether holdfast_meta is among them
SELECT count(*), coalesce(max(name = 'holdfast_meta'), 0) FROM sqlite_master
WHERE type = 'table' AND name GLOB 'holdfast_*';
