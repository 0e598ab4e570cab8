-- The first path: what came in, what goes out, what was said, what ran, what is remembered.
-- All times are INTEGER milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE inbox (
    id              INTEGER PRIMARY KEY,
    instance        TEXT NOT NULL,
    platform_id     TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    sender_id       TEXT NOT NULL,
    sender_name     TEXT NOT NULL,
    content         TEXT NOT NULL,
    place           TEXT NOT NULL,
    direct          INTEGER NOT NULL,
    addressed       INTEGER NOT NULL,
    sent_at         INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    answered_at     INTEGER
);
CREATE UNIQUE INDEX inbox_platform ON inbox (instance, platform_id);
CREATE INDEX inbox_unanswered ON inbox (conversation_id, id) WHERE answered_at IS NULL;

CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY,
    instance        TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    content         TEXT NOT NULL,                    -- JSON of message::Content
    answers         TEXT NOT NULL DEFAULT '[]',       -- JSON list of platform ids
    state           TEXT NOT NULL DEFAULT 'pending',  -- pending, sending, sent, refused, unknown
    platform_id     TEXT,
    reason          TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
);
CREATE INDEX outbox_pending ON outbox (instance, conversation_id, id) WHERE state = 'pending';
CREATE INDEX outbox_sending ON outbox (instance, id) WHERE state = 'sending';

CREATE TABLE channels (
    id               TEXT PRIMARY KEY,
    platform         TEXT NOT NULL,
    instance         TEXT NOT NULL,
    display_name     TEXT,
    direct           INTEGER NOT NULL DEFAULT 0,
    is_active        INTEGER NOT NULL DEFAULT 1,
    window_start     INTEGER NOT NULL DEFAULT 0,      -- first message that a turn still sees
    created_at       INTEGER NOT NULL,
    last_activity_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE conversation_messages (
    id          INTEGER PRIMARY KEY,
    channel_id  TEXT NOT NULL,
    role        TEXT NOT NULL,                        -- user, assistant, event
    sender_name TEXT,
    sender_id   TEXT,
    content     TEXT NOT NULL,
    metadata    TEXT,                                 -- JSON
    created_at  INTEGER NOT NULL
);
CREATE INDEX conversation_messages_channel ON conversation_messages (channel_id, id);

CREATE TABLE branch_runs (
    id           INTEGER PRIMARY KEY,                 -- the process number
    channel_id   TEXT NOT NULL,
    description  TEXT NOT NULL,
    conclusion   TEXT,
    status       TEXT NOT NULL DEFAULT 'running',     -- running, done, failed, cancelled
    tool_calls   INTEGER NOT NULL DEFAULT 0,
    answers      TEXT NOT NULL DEFAULT '[]',          -- platform ids of the messages that asked for it
    relayed      INTEGER NOT NULL DEFAULT 0,
    started_at   INTEGER NOT NULL,
    completed_at INTEGER
);
CREATE INDEX branch_runs_open ON branch_runs (channel_id) WHERE relayed = 0;

CREATE TABLE worker_runs (
    id              INTEGER PRIMARY KEY,              -- the process number
    channel_id      TEXT NOT NULL,
    task            TEXT NOT NULL,
    result          TEXT,
    status          TEXT NOT NULL DEFAULT 'running',  -- running, waiting_for_input, done, failed
    outcome_kind    TEXT,                             -- success, partial, cancelled, timeout, failed
    outcome_summary TEXT,
    interactive     INTEGER NOT NULL DEFAULT 0,
    transcript      TEXT,                             -- JSON
    tool_calls      INTEGER NOT NULL DEFAULT 0,
    answers         TEXT NOT NULL DEFAULT '[]',       -- platform ids of the messages that asked for it
    relayed         INTEGER NOT NULL DEFAULT 0,
    started_at      INTEGER NOT NULL,
    completed_at    INTEGER
);
CREATE INDEX worker_runs_open ON worker_runs (channel_id) WHERE relayed = 0;

CREATE TABLE run_journal (
    run     INTEGER NOT NULL,                         -- the process number
    step    INTEGER NOT NULL,
    kind    TEXT NOT NULL,                            -- start, model, tool, nudge, route, end
    payload TEXT NOT NULL,                            -- JSON
    at      INTEGER NOT NULL,
    PRIMARY KEY (run, step)
) WITHOUT ROWID;

CREATE TABLE memories (
    id               TEXT PRIMARY KEY,
    content          TEXT NOT NULL,
    memory_type      TEXT NOT NULL,
    importance       REAL NOT NULL DEFAULT 0.5,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    last_accessed_at INTEGER NOT NULL,
    access_count     INTEGER NOT NULL DEFAULT 0,
    source           TEXT,
    channel_id       TEXT,
    forgotten        INTEGER NOT NULL DEFAULT 0,
    forget_reason    TEXT,
    change_seq       INTEGER NOT NULL                 -- rises with every change; indexes catch up by it
) WITHOUT ROWID;
CREATE UNIQUE INDEX memories_change ON memories (change_seq);
CREATE INDEX memories_type ON memories (memory_type, importance);

CREATE TABLE associations (
    id            TEXT PRIMARY KEY,
    source_id     TEXT NOT NULL REFERENCES memories (id) ON DELETE CASCADE,
    target_id     TEXT NOT NULL REFERENCES memories (id) ON DELETE CASCADE,
    relation_type TEXT NOT NULL,
    weight        REAL NOT NULL DEFAULT 0.5,
    created_at    INTEGER NOT NULL,
    UNIQUE (source_id, target_id, relation_type)
) WITHOUT ROWID;
CREATE INDEX associations_target ON associations (target_id);
