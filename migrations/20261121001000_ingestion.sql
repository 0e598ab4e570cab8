-- Files that are taken into memory, known by what is in them, and the chunks of each that are in.
CREATE TABLE ingestion_files (
    content_hash TEXT PRIMARY KEY,                    -- SHA-256; 'left:<name>' for a file that cannot be taken
    filename     TEXT NOT NULL,
    file_size    INTEGER NOT NULL,
    modified_ns  INTEGER NOT NULL,                    -- of the file; with the size it tells whether it has changed
    status       TEXT NOT NULL DEFAULT 'processing',  -- processing, completed, failed, removed, left
    reason       TEXT,                                -- why it failed or was left
    chunk_size   INTEGER NOT NULL DEFAULT 0,          -- characters; stays the same for one file
    total_chunks INTEGER NOT NULL DEFAULT 0,
    text_bytes   INTEGER NOT NULL DEFAULT 0,
    next_offset  INTEGER NOT NULL DEFAULT 0,          -- where in the text the first chunk begins that is not in
    failures     INTEGER NOT NULL DEFAULT 0,          -- of that chunk
    started_at   INTEGER NOT NULL,
    completed_at INTEGER
) WITHOUT ROWID;

-- One row for each chunk that is in, written with its memories in one transaction.
CREATE TABLE ingestion_progress (
    content_hash TEXT NOT NULL REFERENCES ingestion_files (content_hash) ON DELETE CASCADE,
    chunk_index  INTEGER NOT NULL,                    -- from 0
    memories     INTEGER NOT NULL,
    completed_at INTEGER NOT NULL,
    PRIMARY KEY (content_hash, chunk_index)
) WITHOUT ROWID;
