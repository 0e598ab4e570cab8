//! `spacebot usage`: what model calls took and cost, and how much of each ceiling is used.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::clock::{SystemClock, Timestamp};
use crate::config::{Config, NANO_PLACES, decimal_text};
use crate::db::{Db, DbError, Schema};
use crate::error::{Fault, Kind};
use crate::text;
use crate::usage::{self, By, Line, Standing, Unit};

/// Longest key in a column, in bytes.
const COLUMN_BYTES: usize = 48;

#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
    #[error("there is no instance database yet")]
    NoDatabase,
    #[error("{0:?} is not one of day, model, agent, conversation and process")]
    UnknownKey(String),
    #[error("{0:?} is no date like 2026-11-21")]
    NoDate(String),
}

impl Fault for UsageError {
    fn kind(&self) -> Kind {
        match self {
            UsageError::Db(error) => error.kind(),
            UsageError::NoDatabase => Kind::NotFound,
            UsageError::Output(_) | UsageError::UnknownKey(_) | UsageError::NoDate(_) => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            UsageError::Db(error) => error.hint(),
            UsageError::NoDatabase => Some("start the daemon once"),
            _ => None,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    pub by: String,
    /// `YYYY-MM-DD`; the first of this month without it.
    pub since: Option<String>,
    pub json: bool,
    pub redate: bool,
}

/// Prints the report.
///
/// # Errors
/// There are no accounts yet, or they cannot be read.
pub fn run(config: &Config, options: &Options) -> Result<(), UsageError> {
    let unknown = || UsageError::UnknownKey(options.by.clone());
    let by = By::ALL.iter().find(|(name, _)| *name == options.by).map(|(_, by)| *by).ok_or_else(unknown)?;
    let now = SystemClock::shared().now();
    let since = match &options.since {
        Some(date) => day_number(date).ok_or_else(|| UsageError::NoDate(date.clone()))?,
        None => day_number(&now.to_rfc3339()[..10]).map_or(0, |day| day / 100 * 100),
    };
    let db = open(config)?.ok_or(UsageError::NoDatabase)?;
    let mut out = io::stdout().lock();
    if options.redate {
        let count = db.write(move |connection| usage::redate(connection, now))?;
        writeln!(out, "{count} calls that lay ahead of the clock count for today now")?;
        return Ok(());
    }
    let (lines, (standings, ahead)) = db.read(|connection| {
        Ok((usage::report(connection, by, since)?, usage::standings(connection, config, now)?))
    })?;
    if options.json {
        let value = json!({
            "by": options.by,
            "lines": lines.iter().map(line_value).collect::<Vec<_>>(),
            "ceilings": standings.iter().map(standing_value).collect::<Vec<_>>(),
            "ahead": ahead.map(Timestamp::to_rfc3339),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    print(&mut out, &lines, &options.by)?;
    for standing in &standings {
        writeln!(out, "{}", standing_line(standing))?;
    }
    if let Some(ahead) = ahead {
        writeln!(
            out,
            "the last call is dated {}, ahead of the clock: until then all calls count for that day",
            ahead.to_rfc3339()
        )?;
        writeln!(out, "if that date is wrong, `spacebot usage --redate` makes those calls today's")?;
    }
    Ok(())
}

/// The accounts; none: the daemon has not run yet.
///
/// # Errors
/// The database cannot be opened.
pub(super) fn open(config: &Config) -> Result<Option<Db>, DbError> {
    let file = config.data_folder.join("data/global.db");
    file.exists().then(|| Db::open_inline_as(&file, Schema::Instance, None)).transpose()
}

fn day_number(date: &str) -> Option<i64> {
    let midnight = Timestamp::parse_rfc3339(&format!("{date}T00:00:00Z"))?;
    midnight.to_rfc3339()[..10].replace('-', "").parse().ok()
}

fn dollars(nano: i64) -> String {
    decimal_text(u64::try_from(nano).unwrap_or(0), NANO_PLACES)
}

fn print(out: &mut impl Write, lines: &[Line], by: &str) -> Result<(), UsageError> {
    writeln!(
        out,
        "{by:<COLUMN_BYTES$} {:>7} {:>11} {:>11} {:>6} {:>11} {:>11} {:>10} {:>7}  USD",
        "calls", "input", "cache read", "share", "cache write", "output", "reasoning", "unknown"
    )?;
    for line in lines {
        let unpriced = match line.unpriced {
            0 => String::new(),
            count => format!(" and {count} calls without a price"),
        };
        writeln!(
            out,
            "{:<COLUMN_BYTES$} {:>7} {:>11} {:>11} {:>6} {:>11} {:>11} {:>10} {:>7}  {}{unpriced}",
            text::one_line(&line.key, COLUMN_BYTES).replace(char::is_control, " "),
            line.calls,
            line.input,
            line.cache_read,
            read_share(line).map_or(String::new(), |share| format!("{share} %")),
            line.cache_write,
            line.output,
            line.reasoning,
            line.unknown,
            dollars(line.charged_nano),
        )?;
    }
    Ok(())
}

/// Per cent of the input that was read from a cache; none: there was no input.
fn read_share(line: &Line) -> Option<i64> {
    (line.input > 0).then(|| line.cache_read.saturating_mul(100) / line.input)
}

fn standing_line(standing: &Standing) -> String {
    let Standing { owner, period, unit, spent, ceiling, percent, strained } = standing;
    let warning = match strained {
        true if spent >= ceiling => ": nothing is left",
        true => ": little is left",
        false => "",
    };
    let (spent, ceiling) = (unit.shown(*spent), unit.shown(*ceiling));
    format!("budget of {owner}, {period}: {spent} of {ceiling}, {percent} %{warning}")
}

fn line_value(line: &Line) -> Value {
    json!({
        "key": line.key, "calls": line.calls,
        "input_tokens": line.input, "output_tokens": line.output,
        "cache_read_tokens": line.cache_read, "cache_write_tokens": line.cache_write,
        "cache_read_percent": read_share(line),
        "reasoning_tokens": line.reasoning, "unknown_calls": line.unknown,
        "charged_tokens": line.charged_tokens, "charged_usd": dollars(line.charged_nano),
        "unpriced_calls": line.unpriced,
    })
}

fn standing_value(standing: &Standing) -> Value {
    let unit = if standing.unit == Unit::Money { "nano_usd" } else { "tokens" };
    json!({
        "owner": standing.owner, "period": standing.period, "unit": unit,
        "spent": standing.spent, "ceiling": standing.ceiling, "percent": standing.percent,
        "warned": standing.strained,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_day() {
        let cases =
            [("2026-11-21", Some(20_261_121)), ("2026-13-01", None), ("2026-11", None), ("today", None)];
        for (text, wanted) in cases {
            assert_eq!(day_number(text), wanted, "{text}");
        }
    }
}
