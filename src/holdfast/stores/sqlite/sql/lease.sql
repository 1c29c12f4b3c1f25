-- How long a lease is, in ms.
SELECT lease FROM holdfast_meta;
