-- What one conversation has in place of what its binding or the agent says; NULL: nothing.
ALTER TABLE channel_settings ADD COLUMN worker_context TEXT;   -- none, fork
ALTER TABLE channel_settings ADD COLUMN channel_model TEXT;    -- provider/model
ALTER TABLE channel_settings ADD COLUMN branch_model TEXT;
ALTER TABLE channel_settings ADD COLUMN worker_model TEXT;
ALTER TABLE channel_settings ADD COLUMN compactor_model TEXT;

-- <instance>:<sender> of the one person whose messages asked for it; NULL: several, or nobody.
ALTER TABLE working_memory_events ADD COLUMN asked_by TEXT;
UPDATE working_memory_events SET asked_by = (
    SELECT i.instance || ':' || i.sender_id FROM channels c
    JOIN inbox i ON i.instance = c.instance AND i.platform_id = working_memory_events.message
    WHERE c.id = working_memory_events.channel_id AND i.conversation_id = c.id)
WHERE message IS NOT NULL;
-- The latest of one person, of what happened in company.
CREATE INDEX working_memory_events_people ON working_memory_events (asked_by, id)
    WHERE asked_by IS NOT NULL AND direct = 0;
