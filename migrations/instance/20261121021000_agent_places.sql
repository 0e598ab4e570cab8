-- The number that each agent has in the ids of answers; it stays, whatever agents come and go.
CREATE TABLE agent_places (
    agent_id TEXT PRIMARY KEY,
    place    INTEGER NOT NULL UNIQUE
);
