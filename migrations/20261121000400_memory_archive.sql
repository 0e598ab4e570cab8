-- Memories that maintenance has removed for good, as they were.
CREATE TABLE memory_archive (
    id          TEXT PRIMARY KEY,
    memory      TEXT NOT NULL,                        -- JSON, the line of an export
    archived_at INTEGER NOT NULL
) WITHOUT ROWID;
