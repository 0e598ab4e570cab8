-- One row of the journal is one append at the end of its table: id = run * 65536 + step.
CREATE TABLE journal (
    id      INTEGER PRIMARY KEY,
    kind    TEXT NOT NULL,                            -- start, model, tool, nudge, route, end
    payload TEXT NOT NULL,                            -- JSON
    at      INTEGER NOT NULL
);
INSERT INTO journal (id, kind, payload, at)
    SELECT run * 65536 + step, kind, payload, at FROM run_journal WHERE step < 65536;
DROP TABLE run_journal;
ALTER TABLE journal RENAME TO run_journal;

CREATE INDEX memories_created ON memories (created_at) WHERE forgotten = 0;
