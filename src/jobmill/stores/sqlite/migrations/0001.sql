-- What jobmill keeps in an SQLite file. The names begin with jobmill_ because the file may be
-- the application's own.

-- One row: the number of the last migration, the latest instant that was written, and how many
-- commits concerned somebody who waits.
CREATE TABLE main.jobmill_meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema INTEGER NOT NULL,
    clock REAL NOT NULL,
    told INTEGER NOT NULL DEFAULT 0
);
INSERT INTO main.jobmill_meta (id, schema, clock) VALUES (1, 0, 0);

-- The last number given in a queue to a document, to a change of one that workers act on, and to an
-- entry of the event list.
CREATE TABLE main.jobmill_numbers (
    queue TEXT PRIMARY KEY,
    doc INTEGER NOT NULL DEFAULT 0,
    heed INTEGER NOT NULL DEFAULT 0,
    event INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- seq is the order of acceptance, in which no number comes twice. What changes often comes first and what is large last, so
-- that a change seldom reads the whole row.
CREATE TABLE main.jobmill_jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    run_at REAL NOT NULL,
    suspect INTEGER NOT NULL DEFAULT 0,
    asked INTEGER NOT NULL DEFAULT 0,
    taken_over INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    lapses INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 1,
    token TEXT,
    worker TEXT,
    lease_until REAL,
    enqueued_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    expires_at REAL,
    unique_key TEXT,
    fingerprint TEXT,
    progress REAL,
    progress_note TEXT,
    last_line INTEGER,
    policy BLOB NOT NULL,
    metadata BLOB,
    memo BLOB,
    asked_error BLOB,
    asked_fingerprint TEXT,
    payload BLOB NOT NULL,
    result BLOB
);
CREATE UNIQUE INDEX main.jobmill_jobs_id ON jobmill_jobs (queue, id);
CREATE UNIQUE INDEX main.jobmill_jobs_key ON jobmill_jobs (queue, name, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('delayed', 'pending', 'processing');
-- The order of a claim: of the whole queue, and of one lane.
CREATE INDEX main.jobmill_jobs_ready
    ON jobmill_jobs (queue, suspect, priority, run_at, seq) WHERE state = 'pending';
CREATE INDEX main.jobmill_jobs_lane
    ON jobmill_jobs (queue, name, suspect, priority, run_at, seq) WHERE state = 'pending';
CREATE INDEX main.jobmill_jobs_delayed
    ON jobmill_jobs (queue, run_at, seq, name) WHERE state = 'delayed';
CREATE INDEX main.jobmill_jobs_lease
    ON jobmill_jobs (queue, lease_until) WHERE state = 'processing';
CREATE INDEX main.jobmill_jobs_asked
    ON jobmill_jobs (queue, worker) WHERE asked AND state = 'processing';
CREATE INDEX main.jobmill_jobs_expiry
    ON jobmill_jobs (queue, expires_at) WHERE expires_at IS NOT NULL;
-- The order of a list: newest first, of the whole queue, a state, a name, a key, an error group.
CREATE INDEX main.jobmill_jobs_newest ON jobmill_jobs (queue, seq);
CREATE INDEX main.jobmill_jobs_state ON jobmill_jobs (queue, state, seq);
CREATE INDEX main.jobmill_jobs_name ON jobmill_jobs (queue, name, seq);
CREATE INDEX main.jobmill_jobs_unique ON jobmill_jobs (queue, unique_key, seq)
    WHERE unique_key IS NOT NULL;
CREATE INDEX main.jobmill_jobs_fingerprint ON jobmill_jobs (queue, fingerprint, seq)
    WHERE fingerprint IS NOT NULL;

CREATE TABLE main.jobmill_job_errors (
    job INTEGER NOT NULL,
    n INTEGER NOT NULL,
    error BLOB NOT NULL,
    PRIMARY KEY (job, n)
) WITHOUT ROWID;

CREATE TABLE main.jobmill_job_lines (
    job INTEGER NOT NULL,
    n INTEGER NOT NULL,
    line BLOB NOT NULL,
    PRIMARY KEY (job, n)
) WITHOUT ROWID;

-- How many jobs there are, by stored state: moved in the transaction that moves the jobs.
CREATE TABLE main.jobmill_counts (
    queue TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (queue, name, state)
) WITHOUT ROWID;

CREATE TABLE main.jobmill_events (
    queue TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    job_id TEXT NOT NULL,
    job_name TEXT NOT NULL,
    kind TEXT NOT NULL,
    PRIMARY KEY (queue, seq)
) WITHOUT ROWID;

CREATE TABLE main.jobmill_error_groups (
    queue TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    job_name TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    last_job_id TEXT NOT NULL,
    last_error BLOB NOT NULL,
    PRIMARY KEY (queue, fingerprint)
) WITHOUT ROWID;
CREATE INDEX main.jobmill_error_groups_seen ON jobmill_error_groups (queue, last_seen);

CREATE TABLE main.jobmill_metrics (
    queue TEXT NOT NULL,
    minute REAL NOT NULL,
    job_name TEXT NOT NULL,
    bucket BLOB NOT NULL,
    PRIMARY KEY (queue, minute, job_name)
) WITHOUT ROWID;

CREATE TABLE main.jobmill_rate_starts (
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    token TEXT NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (queue, key, job_id, token)
) WITHOUT ROWID;
CREATE INDEX main.jobmill_rate_starts_at ON jobmill_rate_starts (queue, key, at);
CREATE INDEX main.jobmill_rate_starts_until ON jobmill_rate_starts (queue, until);

CREATE TABLE main.jobmill_rate_slots (
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    job_id TEXT NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (queue, key, job_id)
) WITHOUT ROWID;
CREATE INDEX main.jobmill_rate_slots_at ON jobmill_rate_slots (queue, key, at);
CREATE INDEX main.jobmill_rate_slots_until ON jobmill_rate_slots (queue, until);

CREATE TABLE main.jobmill_docs (
    queue TEXT NOT NULL,
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    at REAL NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (queue, space, key)
) WITHOUT ROWID;
