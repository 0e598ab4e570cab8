-- What is set for one conversation; NULL: what its binding or the agent says.
CREATE TABLE channel_settings_new (
    channel_id    TEXT PRIMARY KEY,
    response_mode TEXT,                                -- active, observe, mention_only
    delegation    TEXT,                                -- standard, direct
    memory_mode   TEXT,                                -- full, ambient, off
    updated_at    INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO channel_settings_new (channel_id, response_mode, updated_at)
    SELECT channel_id, response_mode, updated_at FROM channel_settings;
DROP TABLE channel_settings;
ALTER TABLE channel_settings_new RENAME TO channel_settings;
