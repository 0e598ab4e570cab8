-- What happened to vectors, in order, so that the index beside the database knows what it has not seen: the
-- last change of each key, also of keys that are gone. And how many vectors a model has, so that nobody has
-- to count them. A forgotten memory has no vector: nothing has to leave it out when it searches.
CREATE TABLE vector_changes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    key      INTEGER NOT NULL UNIQUE                  -- memory_vectors.key
);

ALTER TABLE embedding_models ADD COLUMN vectors INTEGER NOT NULL DEFAULT 0;

DELETE FROM memory_vectors WHERE memory_id IN (SELECT id FROM memories WHERE forgotten = 1);
INSERT INTO vector_changes (key) SELECT key FROM memory_vectors ORDER BY key;
UPDATE embedding_models SET vectors = (SELECT count(*) FROM memory_vectors v WHERE v.model = embedding_models.id);

CREATE TRIGGER vector_came AFTER INSERT ON memory_vectors BEGIN
    DELETE FROM vector_changes WHERE key = new.key;
    INSERT INTO vector_changes (key) VALUES (new.key);
    UPDATE embedding_models SET vectors = vectors + 1 WHERE id = new.model;
END;

CREATE TRIGGER vector_changed AFTER UPDATE ON memory_vectors BEGIN
    DELETE FROM vector_changes WHERE key = new.key;
    INSERT INTO vector_changes (key) VALUES (new.key);
    UPDATE embedding_models SET vectors = vectors - 1 WHERE id = old.model;
    UPDATE embedding_models SET vectors = vectors + 1 WHERE id = new.model;
END;

CREATE TRIGGER vector_went AFTER DELETE ON memory_vectors BEGIN
    DELETE FROM vector_changes WHERE key = old.key;
    INSERT INTO vector_changes (key) VALUES (old.key);
    UPDATE embedding_models SET vectors = vectors - 1 WHERE id = old.model;
END;

CREATE TRIGGER memory_was_forgotten AFTER UPDATE OF forgotten ON memories WHEN new.forgotten = 1 BEGIN
    DELETE FROM memory_vectors WHERE memory_id = new.id;
END;

-- Another text is another vector.
CREATE TRIGGER memory_was_rewritten AFTER UPDATE OF content ON memories WHEN new.content <> old.content BEGIN
    DELETE FROM memory_vectors WHERE memory_id = new.id;
END;

-- The most important memories, read from the top until the rest cannot be more important any more.
CREATE INDEX memories_importance ON memories (importance, created_at) WHERE forgotten = 0;
