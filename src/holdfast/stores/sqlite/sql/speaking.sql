-- Which words hold, or held last. Parameter: words, a JSON array of [id, fence, worker]
-- Returns: place in the array; seq of the job; whether it runs under the word (else that settled it, and nobody since)
SELECT said.key, job.seq, job.state = 'running'
FROM json_each(?) AS said CROSS JOIN holdfast_jobs AS job
WHERE job.id = json_extract(said.value, '$[0]')
AND job.fence = json_extract(said.value, '$[1]')
AND json_extract(said.value, '$[2]') = CASE job.state
    WHEN 'running' THEN job.worker WHEN 'deleted' THEN NULL ELSE iif(job.settled_fence = job.fence, job.settled_by, NULL)
END;
