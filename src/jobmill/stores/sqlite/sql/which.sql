-- name: all
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_newest WHERE queue = :queue

-- name: of_state
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_state
WHERE queue = :queue AND state = :state AND (state <> 'delayed' OR run_at > :now)
    AND (:name IS NULL OR name = :name)

-- name: ripe
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_delayed
WHERE queue = :queue AND state = 'delayed' AND run_at <= :now
    AND (:name IS NULL OR name = :name)

-- name: of_name
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_name
WHERE queue = :queue AND name = :name
    AND iif(state = 'delayed' AND run_at <= :now, 'pending', state)
        IN (SELECT value FROM json_each(:states))

-- name: of_unique_key
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_unique
WHERE queue = :queue AND unique_key = :unique_key AND unique_key IS NOT NULL
    AND (:name IS NULL OR name = :name)
    AND iif(state = 'delayed' AND run_at <= :now, 'pending', state)
        IN (SELECT value FROM json_each(:states))

-- name: of_fingerprint
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_fingerprint
WHERE queue = :queue AND fingerprint = :fingerprint AND fingerprint IS NOT NULL
    AND (:name IS NULL OR name = :name) AND (:unique_key IS NULL OR unique_key = :unique_key)
    AND iif(state = 'delayed' AND run_at <= :now, 'pending', state)
        IN (SELECT value FROM json_each(:states))

-- name: sizes
SELECT
    coalesce((SELECT sum(n) FROM main.jobmill_counts WHERE queue = :queue AND name = :name), 0),
    coalesce((
        SELECT sum(n) FROM main.jobmill_counts
        WHERE queue = :queue AND state IN (SELECT value FROM json_each(:states))
    ), 0)
