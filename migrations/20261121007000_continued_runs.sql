-- How often a run that was cut off has been gone on with.
ALTER TABLE branch_runs ADD COLUMN continuations INTEGER NOT NULL DEFAULT 0;
ALTER TABLE worker_runs ADD COLUMN continuations INTEGER NOT NULL DEFAULT 0;
