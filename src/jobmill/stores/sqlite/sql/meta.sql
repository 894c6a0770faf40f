-- name: there
SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = 'jobmill_meta'

-- name: schema
SELECT schema FROM main.jobmill_meta

-- name: migrated
UPDATE main.jobmill_meta SET schema = ?

-- name: clock
SELECT clock, told FROM main.jobmill_meta

-- name: told
UPDATE main.jobmill_meta SET clock = max(clock, ?), told = told + ?

-- name: lock
UPDATE main.jobmill_meta SET clock = 0 WHERE FALSE

-- name: foreign
PRAGMA data_version
