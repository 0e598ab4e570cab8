-- What model calls take and cost, one row for each request to a provider.

CREATE TABLE token_usage (
    -- Also the number of the reservation.
    id INTEGER PRIMARY KEY,
    agent_id TEXT NOT NULL,
    -- Kind of process, and its number within the agent.
    process_type TEXT NOT NULL,
    process_number INTEGER,
    conversation_id TEXT,
    -- Nobody waits for it: it has a share of the ceilings only.
    background INTEGER NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    -- open: reserved, the outcome is not known yet. billed: as the provider says. unknown: charged in full.
    -- free: never sent, or refused by the provider.
    state TEXT NOT NULL CHECK (state IN ('open', 'billed', 'unknown', 'free')),
    -- What the provider reported; NULL: nothing. Cached tokens are a part of input, reasoning one of output.
    input_tokens INTEGER,
    output_tokens INTEGER,
    cache_read_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    request_count INTEGER NOT NULL DEFAULT 1,
    -- What counts against the ceilings; money in billionths of a US dollar, NULL: the price is unknown.
    charged_tokens INTEGER NOT NULL,
    charged_nano INTEGER,
    -- The most that it could have come to.
    worst_tokens INTEGER NOT NULL,
    worst_nano INTEGER,
    -- estimated: by the price table or the config. unknown: no price.
    cost_status TEXT NOT NULL DEFAULT 'unknown' CHECK (cost_status IN ('estimated', 'unknown')),
    -- UTC day as YYYYMMDD, and milliseconds since 1970; neither is earlier than in the row before.
    day INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL
) STRICT;

CREATE INDEX token_usage_by_day ON token_usage (day);
CREATE INDEX token_usage_by_process ON token_usage (agent_id, process_number);

-- The sums of it that ceilings are compared with. Kept by the triggers alone.
CREATE TABLE token_totals (
    day INTEGER NOT NULL,
    agent_id TEXT NOT NULL,
    background INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    nano INTEGER NOT NULL,
    PRIMARY KEY (day, agent_id, background)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER token_usage_added AFTER INSERT ON token_usage BEGIN
    INSERT INTO token_totals (day, agent_id, background, tokens, nano)
    VALUES (new.day, new.agent_id, new.background, new.charged_tokens, coalesce(new.charged_nano, 0))
    ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens, nano = nano + excluded.nano;
END;

CREATE TRIGGER token_usage_changed AFTER UPDATE OF day, charged_tokens, charged_nano ON token_usage BEGIN
    UPDATE token_totals SET tokens = tokens - old.charged_tokens, nano = nano - coalesce(old.charged_nano, 0)
    WHERE day = old.day AND agent_id = old.agent_id AND background = old.background;
    INSERT INTO token_totals (day, agent_id, background, tokens, nano)
    VALUES (new.day, new.agent_id, new.background, new.charged_tokens, coalesce(new.charged_nano, 0))
    ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens, nano = nano + excluded.nano;
END;

-- Of what the operator was told, so that it is said once: the period (YYYYMM or YYYYMMDD), whose ceiling and which.
CREATE TABLE budget_notices (
    period INTEGER NOT NULL,
    about TEXT NOT NULL,
    PRIMARY KEY (period, about)
) STRICT, WITHOUT ROWID;
