-- Vectors of memories, with the model that made them. Another model means other vectors: they are made
-- anew in the background.
CREATE TABLE embedding_models (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE memory_vectors (
    key       INTEGER PRIMARY KEY AUTOINCREMENT,      -- never used twice: indexes know rows by it
    memory_id TEXT NOT NULL UNIQUE REFERENCES memories (id) ON DELETE CASCADE,
    model     INTEGER NOT NULL REFERENCES embedding_models (id),
    vector    BLOB NOT NULL                           -- [384] f32, little endian, of length 1
);

-- What was said just before and after a memory.
CREATE INDEX memories_channel ON memories (channel_id, created_at) WHERE forgotten = 0;
