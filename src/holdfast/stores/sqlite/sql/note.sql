-- Writes how far claims have come; what an older claim of the job said is over.
-- Each row: job (seq), fence, progress, text (NULL: nothing new)
INSERT INTO holdfast_notes (job, fence, progress, text) VALUES (?, ?, ?, ?)
ON CONFLICT (job) DO UPDATE
SET
    progress = iif(fence = excluded.fence, coalesce(excluded.progress, progress), excluded.progress),
    text = iif(fence = excluded.fence, coalesce(excluded.text, text), excluded.text),
    fence = excluded.fence;
