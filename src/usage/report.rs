//! What the operator reads of the accounts.

use rusqlite::{Connection, params};

use super::ceiling::{Budget, Unit, percent};
use super::period::{self, Period};
use super::{booking_time, ledger};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::db::{DbError, rusqlite};

/// Lines of one report; more would be no overview.
const LINES_MAX: u32 = 10_000;

/// What a report puts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Day,
    Model,
    Agent,
    Conversation,
    Process,
}

impl By {
    pub const ALL: [(&str, By); 5] = [
        ("day", By::Day),
        ("model", By::Model),
        ("agent", By::Agent),
        ("conversation", By::Conversation),
        ("process", By::Process),
    ];

    fn column(self) -> &'static str {
        match self {
            By::Day => "CAST(day AS TEXT)",
            By::Model => "provider || '/' || model",
            By::Agent => "agent_id",
            By::Conversation => "coalesce(conversation_id, '-')",
            By::Process => "process_type",
        }
    }
}

/// Sums over some rows. Tokens are those that providers have reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    pub key: String,
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub reasoning: i64,
    /// Calls that are charged in full, because nobody knows what came of them.
    pub unknown: i64,
    /// What counts against ceilings.
    pub charged_tokens: i64,
    pub charged_nano: i64,
    /// Charged calls without a price.
    pub unpriced: i64,
}

/// The sums since a day (`YYYYMMDD`), by key.
///
/// # Errors
/// The database cannot be read.
pub fn report(connection: &Connection, by: By, since: i64) -> Result<Vec<Line>, DbError> {
    let sum = |column: &str| format!("coalesce(sum({column}), 0)");
    let sql = format!(
        "SELECT {key}, sum(request_count), {}, {}, {}, {}, {},
             sum(state IN ('unknown', 'open')), sum(charged_tokens), {}, sum(charged_nano IS NULL AND state <> 'free')
         FROM token_usage WHERE day >= ?1 GROUP BY {key} ORDER BY {key} LIMIT ?2",
        sum("input_tokens"),
        sum("output_tokens"),
        sum("cache_read_tokens"),
        sum("cache_write_tokens"),
        sum("reasoning_tokens"),
        sum("charged_nano"),
        key = by.column(),
    );
    let mut statement = connection.prepare(&sql)?;
    let lines = statement.query_map(params![since, LINES_MAX], |row| {
        Ok(Line {
            key: row.get(0)?,
            calls: row.get(1)?,
            input: row.get(2)?,
            output: row.get(3)?,
            cache_read: row.get(4)?,
            cache_write: row.get(5)?,
            reasoning: row.get(6)?,
            unknown: row.get(7)?,
            charged_tokens: row.get(8)?,
            charged_nano: row.get(9)?,
            unpriced: row.get(10)?,
        })
    })?;
    Ok(lines.collect::<Result<_, _>>()?)
}

/// One ceiling and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `the daemon` or `agent main`.
    pub owner: String,
    pub period: &'static str,
    pub unit: Unit,
    pub spent: u64,
    pub ceiling: u64,
    pub percent: u64,
    /// The operator is warned.
    pub strained: bool,
}

/// Every ceiling of the config, and the time of the last call if it lies ahead of the clock.
///
/// # Errors
/// The database cannot be read.
pub fn standings(
    connection: &Connection,
    config: &Config,
    now: Timestamp,
) -> Result<(Vec<Standing>, Option<Timestamp>), DbError> {
    let ahead = ledger::ahead(connection, now)?;
    let agents = config.agents.iter();
    let own = agents.map(|agent| Budget { owner: Some(agent.id.clone()), config: agent.budget.clone() });
    let budgets = std::iter::once(Budget { owner: None, config: config.budget.clone() }).chain(own);
    let day = period::day(booking_time(now, ahead));
    Ok((standings_of(connection, budgets, day)?, ahead))
}

pub(super) fn standings_of(
    connection: &Connection,
    budgets: impl IntoIterator<Item = Budget>,
    day: i64,
) -> Result<Vec<Standing>, DbError> {
    let mut standings = Vec::new();
    for budget in budgets {
        for period in Period::ALL {
            let spent = ledger::spent(connection, period.days(day), budget.owner.as_ref())?.all;
            for unit in Unit::ALL {
                let Some(ceiling) = budget.ceiling(period, unit) else { continue };
                let spent = if unit == Unit::Money { spent.nano.unwrap_or(0) } else { spent.tokens };
                let (owner, period) = (budget.name(), period.name());
                let (percent, strained) = (percent(spent, ceiling), budget.strains(spent, ceiling));
                standings.push(Standing { owner, period, unit, spent, ceiling, percent, strained });
            }
        }
    }
    Ok(standings)
}
