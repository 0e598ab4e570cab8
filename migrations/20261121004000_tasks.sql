-- The task board of an agent, what each conversation wants to hear, and commands in the inbox.
CREATE TABLE tasks (
    number          INTEGER PRIMARY KEY AUTOINCREMENT, -- counts within the agent, never used twice
    title           TEXT NOT NULL,
    description     TEXT NOT NULL DEFAULT '',
    status          TEXT NOT NULL,                     -- pending_approval, backlog, ready, in_progress, done, failed
    priority        TEXT NOT NULL,                     -- critical, high, medium, low
    subtasks        TEXT NOT NULL DEFAULT '[]',        -- JSON list of {title, completed}
    metadata        TEXT NOT NULL DEFAULT '{}',        -- JSON object
    revision        INTEGER NOT NULL DEFAULT 1,        -- rises with every change
    attempts        INTEGER NOT NULL DEFAULT 0,        -- since it was last approved; what an orderly stop cut off is not counted
    worker          INTEGER,                           -- process number, while in_progress
    conversation_id TEXT,                              -- where it was born and its result is told; NULL: nowhere
    instance        TEXT,
    direct          INTEGER,
    place           TEXT,
    created_by      TEXT NOT NULL,                     -- operator, person:<name>, process:<kind>:<number>
    approved_by     TEXT,
    approved_at     INTEGER,
    result          TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    completed_at    INTEGER
);
CREATE INDEX tasks_status ON tasks (status, number);
CREATE INDEX tasks_updated ON tasks (updated_at);

CREATE TABLE task_attempts (
    worker     INTEGER PRIMARY KEY,                    -- process number
    task       INTEGER NOT NULL REFERENCES tasks (number) ON DELETE CASCADE,
    attempt    INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    outcome    TEXT,                                   -- success, partial, cancelled, timeout, failed, interrupted
    summary    TEXT
);
CREATE INDEX task_attempts_task ON task_attempts (task, worker);
-- One worker at a time, whatever the code does.
CREATE UNIQUE INDEX task_attempts_live ON task_attempts (task) WHERE ended_at IS NULL;

CREATE TABLE channel_settings (
    channel_id    TEXT PRIMARY KEY,
    response_mode TEXT NOT NULL,                       -- active, observe, mention_only
    updated_at    INTEGER NOT NULL
) WITHOUT ROWID;

-- Slash commands are answered beside the turns of their conversation, not by them.
ALTER TABLE inbox ADD COLUMN command INTEGER NOT NULL DEFAULT 0;
