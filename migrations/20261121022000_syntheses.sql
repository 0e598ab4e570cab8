-- What a model has put together of what happened: paragraphs of a day that goes on, and a summary of each day that is over.
CREATE TABLE working_memory_syntheses (
    id         INTEGER PRIMARY KEY,
    daily      INTEGER NOT NULL,                      -- the summary of a day, else a paragraph
    text       TEXT NOT NULL,                         -- on one line
    from_at    INTEGER NOT NULL,                      -- times of the first and of the last event in it
    to_at      INTEGER NOT NULL,
    events     INTEGER NOT NULL,                      -- how many they are
    last_event INTEGER NOT NULL,                      -- the highest id among them
    created_at INTEGER NOT NULL
);
CREATE INDEX working_memory_syntheses_time ON working_memory_syntheses (to_at);
