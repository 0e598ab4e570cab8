//! The rows and sums of the accounts. Everything here runs within a transaction of the writer.

use rusqlite::{OptionalExtension, params};

use super::ceiling::{Amount, Budget, Refusal, Spent};
use super::period::{self, Period};
use super::slip::{Entry, Settled, TOKENS_MOST};
use super::{KEEP_DAYS, ROWS_MAX, booking_time};
use crate::billing::Tokens;
use crate::clock::Timestamp;
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError, rusqlite};
use crate::id::AgentId;

/// What came of asking for room.
pub(super) struct Booked {
    /// The row of the reservation.
    pub(super) row: Result<i64, Refusal>,
    /// What the operator is to hear, once it is committed that they have; whether calls are refused.
    pub(super) news: Vec<(bool, String)>,
}

/// Compares the most that a call may come to with every ceiling, and books it if it fits. Both happen in this
/// transaction, and the writer runs one at a time.
pub(super) fn reserve(
    connection: &Connection,
    entry: &Entry,
    budgets: &[Budget],
    now: Timestamp,
) -> Result<Booked, DbError> {
    let at = time_for(connection, now)?;
    let (day, worst) = (period::day(at), entry.worst());
    let mut news = Vec::new();
    for budget in budgets {
        for period in Period::ALL {
            let spent = spent(connection, period.days(day), budget.owner.as_ref())?;
            for (about, text) in budget.warnings(period, &spent) {
                if notice(connection, period.number(day), &about)? {
                    news.push((false, text));
                }
            }
            if let Some(refusal) = budget.refuses(period, &spent, worst, entry.payer.background) {
                let about = format!("{} refuses, background {}", budget.name(), entry.payer.background);
                if notice(connection, period.number(day), &about)? {
                    news.push((true, format!("calls are refused from now on: {}", refusal.reason)));
                }
                return Ok(Booked { row: Err(refusal), news });
            }
        }
    }
    let row = insert(connection, entry, ("open", Tokens::default(), worst), at)?;
    Ok(Booked { row: Ok(row), news })
}

/// The end of a call.
pub(super) fn settle(connection: &Connection, settled: &Settled, now: Timestamp) -> Result<(), DbError> {
    let Settled { row, entry, state, tokens, charged } = settled;
    let Some(row) = row else {
        let at = time_for(connection, now)?;
        return insert(connection, entry, (state, *tokens, *charged), at).map(drop);
    };
    // Only from `open`: what was charged in full at a start stays so.
    connection
        .prepare_cached(
            "UPDATE token_usage SET state = ?2, input_tokens = ?3, output_tokens = ?4, cache_read_tokens = ?5,
                 cache_write_tokens = ?6, reasoning_tokens = ?7, charged_tokens = ?8, charged_nano = ?9
             WHERE id = ?1 AND state = 'open'",
        )?
        .execute(params![
            row,
            state,
            integer(tokens.input),
            integer(tokens.output),
            integer(tokens.cache_read),
            integer(tokens.cache_write),
            integer(tokens.reasoning),
            whole(charged.tokens),
            charged.nano.map(whole),
        ])?;
    Ok(())
}

/// At the start: reservations of the last life stand in full. Writes nothing where there are none.
pub(super) fn close_open(db: &Db) -> Result<usize, DbError> {
    let open = db.read(|connection| {
        Ok(connection
            .query_row("SELECT count(*) FROM token_usage WHERE state = 'open'", [], |row| row.get(0))?)
    })?;
    let open: i64 = open;
    if open == 0 {
        return Ok(0);
    }
    db.write(|connection| {
        Ok(connection.execute("UPDATE token_usage SET state = 'unknown' WHERE state = 'open'", [])?)
    })
}

/// Spent and reserved from the first to the last day, by one agent or by all.
pub(super) fn spent(
    connection: &Connection,
    (from, to): (i64, i64),
    owner: Option<&AgentId>,
) -> Result<Spent, DbError> {
    let mut statement = connection.prepare_cached(
        "SELECT sum(tokens), sum(nano), sum(tokens * background), sum(nano * background)
         FROM token_totals WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR agent_id = ?3)",
    )?;
    let sums = statement.query_row(params![from, to, owner.map(AgentId::as_str)], |row| {
        let sum = |column| row.get::<_, Option<i64>>(column);
        Ok([sum(0)?, sum(1)?, sum(2)?, sum(3)?])
    })?;
    let [tokens, nano, tokens_behind, nano_behind] = sums.map(|sum| positive(sum.unwrap_or(0)));
    Ok(Spent {
        all: Amount { tokens, nano: Some(nano) },
        background: Amount { tokens: tokens_behind, nano: Some(nano_behind) },
    })
}

/// What a process has cost, and how many of its calls have no price; none: no calls are known.
///
/// # Errors
/// The database cannot be read.
pub fn cost_of_process(
    connection: &Connection,
    agent: &AgentId,
    number: u64,
) -> Result<Option<(u64, u64)>, DbError> {
    let found = connection.query_row(
        "SELECT count(*), coalesce(sum(charged_nano), 0), count(*) - count(charged_nano)
         FROM token_usage WHERE agent_id = ?1 AND process_number = ?2",
        params![agent.as_str(), whole(number)],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    )?;
    Ok((found.0 > 0).then(|| (positive(found.1), positive(found.2))))
}

/// For a clock that had run ahead: rows of the future become rows of now, where they still count. How many.
///
/// # Errors
/// The database cannot be written.
pub fn redate(connection: &Connection, now: Timestamp) -> Result<usize, DbError> {
    Ok(connection.execute(
        "UPDATE token_usage SET recorded_at = ?1, day = ?2 WHERE recorded_at > ?1",
        params![now.0, period::day(now)],
    )?)
}

/// The last row's time, if it lies ahead of now.
pub(super) fn ahead(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>, DbError> {
    Ok(last_time(connection)?.filter(|last| *last > now))
}

fn last_time(connection: &Connection) -> Result<Option<Timestamp>, DbError> {
    let mut statement =
        connection.prepare_cached("SELECT recorded_at FROM token_usage ORDER BY id DESC LIMIT 1")?;
    Ok(statement.query_row([], |row| row.get(0).map(Timestamp)).optional()?)
}

fn time_for(connection: &Connection, now: Timestamp) -> Result<Timestamp, DbError> {
    Ok(booking_time(now, last_time(connection)?))
}

/// True the first time.
fn notice(connection: &Connection, period: i64, about: &str) -> Result<bool, DbError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO budget_notices (period, about) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?;
    Ok(statement.execute(params![period, about])? > 0)
}

fn insert(
    connection: &Connection,
    entry: &Entry,
    (state, tokens, charged): (&str, Tokens, Amount),
    at: Timestamp,
) -> Result<i64, DbError> {
    let day = period::day(at);
    let is_new_day = connection
        .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM token_totals WHERE day = ?1)")?
        .query_row([day], |row| row.get(0))?;
    if is_new_day {
        prune(connection, at)?;
    }
    let worst = entry.worst();
    let payer = &entry.payer;
    let mut statement = connection.prepare_cached(
        "INSERT INTO token_usage (agent_id, process_type, process_number, conversation_id, background, model, provider,
             state, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
             charged_tokens, charged_nano, worst_tokens, worst_nano, cost_status, day, recorded_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    statement.execute(params![
        payer.agent.as_str(),
        payer.kind.as_str(),
        payer.number.map(whole),
        payer.conversation.as_ref().map(|conversation| conversation.as_str()),
        payer.background,
        entry.model,
        entry.provider,
        state,
        integer(tokens.input),
        integer(tokens.output),
        integer(tokens.cache_read),
        integer(tokens.cache_write),
        integer(tokens.reasoning),
        whole(charged.tokens),
        charged.nano.map(whole),
        whole(worst.tokens),
        worst.nano.map(whole),
        if entry.price.is_some() { "estimated" } else { "unknown" },
        day,
        at.0,
    ])?;
    Ok(connection.last_insert_rowid())
}

/// With the first row of a day.
fn prune(connection: &Connection, now: Timestamp) -> Result<(), DbError> {
    let oldest = period::days_before(now, KEEP_DAYS);
    connection.execute("DELETE FROM token_usage WHERE day < ?1", [oldest])?;
    connection
        .execute("DELETE FROM token_usage WHERE id <= (SELECT max(id) FROM token_usage) - ?1", [ROWS_MAX])?;
    connection.execute("DELETE FROM token_totals WHERE day < ?1", [oldest])?;
    // Of months and of days; the numbers of months are smaller.
    connection.execute(
        "DELETE FROM budget_notices WHERE period < ?1 OR (period > 999999 AND period < ?2)",
        [oldest / 100, oldest],
    )?;
    Ok(())
}

/// As reported, if it is a number of tokens at all: sums of it must not overflow.
fn integer(value: Option<u64>) -> Option<i64> {
    value.map(|value| whole(value.min(TOKENS_MOST)))
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
