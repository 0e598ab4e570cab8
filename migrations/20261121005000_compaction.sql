-- What has left the window of a conversation: its summaries, and its words in a compressed form.

-- Rises with every change of what a turn sees besides new lines: whoever has read an older one is refused.
ALTER TABLE channels ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;

CREATE TABLE conversation_summaries (
    id          INTEGER PRIMARY KEY,
    channel_id  TEXT NOT NULL,
    tier        INTEGER NOT NULL,                     -- 1: of lines; n + 1: of summaries of tier n
    first_line  INTEGER NOT NULL,                     -- of conversation_messages
    last_line   INTEGER NOT NULL,
    lines       INTEGER NOT NULL,
    first_at    INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    content     TEXT,                                 -- none: the lines left without a summary
    awaited     INTEGER NOT NULL DEFAULT 0,           -- a summary may still follow
    replaced_by INTEGER,                              -- the summary that stands in its place
    created_at  INTEGER NOT NULL
);
CREATE INDEX conversation_summaries_head ON conversation_summaries (channel_id, first_line)
    WHERE replaced_by IS NULL;

CREATE TABLE conversation_archives (
    id         INTEGER PRIMARY KEY,
    channel_id TEXT NOT NULL,
    first_line INTEGER NOT NULL,
    last_line  INTEGER NOT NULL,
    lines      INTEGER NOT NULL,
    body       BLOB NOT NULL,                         -- zlib of one JSON object per line
    plain      INTEGER NOT NULL DEFAULT 1,            -- the lines stand in conversation_messages too
    unread     INTEGER NOT NULL DEFAULT 0,            -- memories are still to be taken from them
    tries      INTEGER NOT NULL DEFAULT 0,            -- of that, which failed
    created_at INTEGER NOT NULL
);
CREATE INDEX conversation_archives_lines ON conversation_archives (channel_id, last_line);
CREATE INDEX conversation_archives_unread ON conversation_archives (channel_id, id) WHERE unread = 1;
CREATE INDEX conversation_archives_plain ON conversation_archives (id) WHERE plain = 1;
