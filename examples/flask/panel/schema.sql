CREATE TABLE IF NOT EXISTS person (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL              -- its hash
);
CREATE TABLE IF NOT EXISTS backup (
    job_id TEXT PRIMARY KEY,            -- all else is asked from the dispatcher
    owner TEXT NOT NULL REFERENCES person (name),
    database TEXT NOT NULL,
    submitted TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
