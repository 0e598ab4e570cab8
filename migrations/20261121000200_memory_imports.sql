-- Lines that were imported: a second run over the same file takes only what is new.
CREATE TABLE memory_imports (
    key INTEGER PRIMARY KEY                           -- 64 bits of a hash over the line's values
);
