-- Messages for workers: written with the end of the turn that routed them, gone with the record that the worker has
-- heard them, or with its end.
CREATE TABLE worker_messages (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    worker     INTEGER NOT NULL,                      -- the process number
    message    TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE INDEX worker_messages_worker ON worker_messages (worker, id);
