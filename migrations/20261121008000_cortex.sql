-- What the cortex of an agent knows and has written.

-- The briefing in the stable part of the channel's prompt; one row.
CREATE TABLE bulletin (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    inputs     TEXT NOT NULL,                         -- fingerprint of what it was made from
    memories   TEXT NOT NULL,                         -- JSON list of the ids of the memories in it
    rendered   TEXT NOT NULL,                         -- without a model; empty: nothing is known
    smoothed   TEXT,                                  -- the same in the words of a model
    changed_at INTEGER NOT NULL
);

-- How the agent shows itself; one row.
CREATE TABLE agent_profile (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    inputs       TEXT NOT NULL,                       -- fingerprint of the identity files
    display_name TEXT NOT NULL,
    status       TEXT NOT NULL,
    bio          TEXT NOT NULL,
    by_model     INTEGER NOT NULL,
    made_at      INTEGER NOT NULL
);

-- What was out of the ordinary; the newest are kept.
CREATE TABLE cortex_events (
    id         INTEGER PRIMARY KEY,
    event_type TEXT NOT NULL,
    summary    TEXT NOT NULL,
    details    TEXT,                                  -- JSON
    created_at INTEGER NOT NULL
);

CREATE TABLE cortex_chat_messages (
    id         INTEGER PRIMARY KEY,
    thread_id  TEXT NOT NULL,
    role       TEXT NOT NULL,                         -- user, assistant
    content    TEXT NOT NULL,
    tool_calls TEXT,                                  -- JSON list of the names of the tools that were called
    created_at INTEGER NOT NULL
);
CREATE INDEX cortex_chat_messages_thread ON cortex_chat_messages (thread_id, id);
