-- Up to which line of a conversation memories were taken while it went on.
CREATE TABLE memory_persistence (
    channel_id   TEXT PRIMARY KEY,
    from_line    INTEGER NOT NULL,                    -- memories were taken from the lines behind this one,
    through_line INTEGER NOT NULL,                    -- up to this one
    failures     INTEGER NOT NULL DEFAULT 0,          -- of what comes next
    at           INTEGER NOT NULL
) WITHOUT ROWID;

-- What was said before is left to what takes memories from a window that fills.
INSERT INTO memory_persistence (channel_id, from_line, through_line, at)
    SELECT channel_id, max(id), max(id), max(created_at) FROM conversation_messages GROUP BY channel_id;
