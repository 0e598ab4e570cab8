-- When no model could be asked about the message, and its sender was told that it is kept.
ALTER TABLE inbox ADD COLUMN deferred_at INTEGER;
