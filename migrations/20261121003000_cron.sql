-- Jobs that run at their time, and what became of each run.
CREATE TABLE cron_jobs (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice: runs know their job by it
    name                TEXT NOT NULL UNIQUE,
    prompt              TEXT NOT NULL,
    cron_expr           TEXT,                               -- either this, in the agent's time zone,
    interval_secs       INTEGER,                            -- or this, counted from the anchor
    active_start_hour   INTEGER NOT NULL DEFAULT 0,         -- equal hours: always
    active_end_hour     INTEGER NOT NULL DEFAULT 0,
    delivery_target     TEXT NOT NULL,                      -- a conversation, with where it takes place
    target_instance     TEXT NOT NULL,
    target_direct       INTEGER NOT NULL,
    target_name         TEXT NOT NULL,
    enabled             INTEGER NOT NULL DEFAULT 1,
    run_once            INTEGER NOT NULL DEFAULT 0,
    done                INTEGER NOT NULL DEFAULT 0,         -- a job for one time whose slot was claimed
    timeout_secs        INTEGER NOT NULL,
    failures            INTEGER NOT NULL DEFAULT 0,         -- in a row
    anchor              INTEGER NOT NULL,                   -- made, or switched on; earlier slots are not missed
    created_at          INTEGER NOT NULL,
    CHECK ((cron_expr IS NULL) <> (interval_secs IS NULL))
);

-- A slot is claimed by its row, before its run begins: UNIQUE is what makes it run at most once.
CREATE TABLE cron_executions (
    id         INTEGER PRIMARY KEY,
    job_id     INTEGER NOT NULL,                            -- stays when the job is deleted
    job        TEXT NOT NULL,
    slot       INTEGER NOT NULL,
    state      TEXT NOT NULL,                               -- running, succeeded, failed, timed_out, interrupted, skipped
    error      TEXT,
    outcome    TEXT,                                        -- what set_outcome said last
    delivery   TEXT NOT NULL DEFAULT 'none',                -- none, queued (then the outbox knows more)
    outbox_id  INTEGER,
    claimed_at INTEGER NOT NULL,
    ended_at   INTEGER,
    UNIQUE (job_id, slot)
);
CREATE INDEX cron_executions_running ON cron_executions (job_id) WHERE state = 'running';
