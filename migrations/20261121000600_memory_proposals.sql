-- Pairs of memories that may contradict each other. Nobody guesses: the cortex or the operator decides.
CREATE TABLE memory_proposals (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    newer_id   TEXT NOT NULL REFERENCES memories (id) ON DELETE CASCADE,
    older_id   TEXT NOT NULL REFERENCES memories (id) ON DELETE CASCADE,
    cosine     REAL NOT NULL,
    created_at INTEGER NOT NULL,
    decision   TEXT,                                  -- contradicts, updates, unrelated; null: open
    decided_at INTEGER,
    UNIQUE (newer_id, older_id)
);
CREATE INDEX memory_proposals_open ON memory_proposals (id) WHERE decision IS NULL;
CREATE INDEX memory_proposals_older ON memory_proposals (older_id);
