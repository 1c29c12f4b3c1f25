-- Whether any job saved something
SELECT EXISTS (SELECT 1 FROM holdfast_saved);
