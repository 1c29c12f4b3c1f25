-- Whether the history goes further back than it is kept. Parameters: length, the start of the oldest that is kept
SELECT
    EXISTS (SELECT 1 FROM holdfast_tallies WHERE length = ?1 AND start < ?2)
    OR EXISTS (SELECT 1 FROM holdfast_levels WHERE length = ?1 AND start < ?2);
