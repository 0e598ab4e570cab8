-- Files that came with messages. Their bytes lie in `attachments/<hash>` beside the database, once for each hash.
-- They are deleted with their message.
CREATE TABLE attachments (
    id INTEGER PRIMARY KEY,
    inbox_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    -- What the sender calls it.
    media_type TEXT NOT NULL,
    -- What its bytes are: png, jpeg, gif, webp, pdf, text, other.
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    hash TEXT NOT NULL
);
CREATE INDEX attachments_of_message ON attachments (inbox_id);
CREATE INDEX attachments_by_hash ON attachments (hash);
