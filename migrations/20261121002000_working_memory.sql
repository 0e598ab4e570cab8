-- What happened lately, for the prompts of all conversations of the agent.
CREATE TABLE working_memory_events (
    id         INTEGER PRIMARY KEY,
    kind       TEXT NOT NULL,
    channel_id TEXT,                                  -- where it happened; none when in no conversation
    direct     INTEGER NOT NULL DEFAULT 0,            -- that conversation is with one person
    text       TEXT NOT NULL,
    importance REAL NOT NULL,
    run        TEXT,                                  -- the process, such as branch:3
    message    TEXT,                                  -- platform id of the message that asked for it
    created_at INTEGER NOT NULL
);
-- Holds all that the choice of events for a prompt looks at.
CREATE INDEX working_memory_events_recent ON working_memory_events (created_at, importance, channel_id);

CREATE INDEX channels_activity ON channels (last_activity_at);
