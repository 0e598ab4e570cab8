-- Agents that ask each other: what this agent has asked of others, and which of its tasks others asked for.
CREATE TABLE link_requests (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id TEXT NOT NULL,                     -- whose turn asked; its result is told there
    target          TEXT NOT NULL,                     -- agent
    message         TEXT NOT NULL,
    answers         TEXT NOT NULL DEFAULT '[]',        -- platform ids of the messages that asked for it
    depth           INTEGER NOT NULL,                  -- 1: a person asked; one more for each answer that led to a further question
    state           TEXT NOT NULL,                     -- pending, refused (over the limit, not told yet), delivered, answered
    result          TEXT,
    relayed         INTEGER NOT NULL DEFAULT 0,
    created_at      INTEGER NOT NULL,
    answered_at     INTEGER
);
CREATE INDEX link_requests_waiting ON link_requests (id) WHERE state IN ('pending', 'refused');
CREATE INDEX link_requests_answered ON link_requests (conversation_id) WHERE state = 'answered' AND relayed = 0;
CREATE INDEX link_requests_target ON link_requests (target, created_at);

-- The key names the request within the asking agent; so it becomes a task once, however often it comes.
ALTER TABLE tasks ADD COLUMN asked_by TEXT;
ALTER TABLE tasks ADD COLUMN asked_key TEXT;
ALTER TABLE tasks ADD COLUMN returned INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX tasks_asked ON tasks (asked_by, asked_key) WHERE asked_by IS NOT NULL;
CREATE INDEX tasks_unreturned ON tasks (number) WHERE asked_by IS NOT NULL AND returned = 0;
