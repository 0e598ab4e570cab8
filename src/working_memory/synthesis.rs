//! What a model has put together of the events: paragraphs of today and summaries of the days before. Each
//! says up to which event it goes, so that the rest is shown as events and nothing is put together twice.

use rusqlite::{Connection, Row, params};

use super::due::DAY_EVENTS_MIN;
use super::event::single_line;
use super::{DAYS, Days, Event, Pending, store};
use crate::clock::Timestamp;
use crate::db::{DbError, rusqlite};

/// Events that one call reads at most, as long as [`super::TEXT_BYTES_MAX`] each; for what is left over
/// of today there is another call, of a day that is over the most important are read.
pub const BATCH_EVENTS_MAX: usize = 100;
/// Longest text that is stored, in bytes; words are bounded before.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Rows of the days of interest: what a model is asked for in a week, and then some.
const ROWS_MAX: usize = 200;

const COLUMNS: &str = "id, daily, text, from_at, to_at, events, last_event, created_at";

/// A paragraph of a day, or the summary of all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthesis {
    pub id: i64,
    pub daily: bool,
    /// On one line.
    pub text: String,
    /// When the first and the last of its events happened.
    pub from: Timestamp,
    pub to: Timestamp,
    pub events: usize,
    /// The highest id among them.
    pub last_event: i64,
    pub made_at: Timestamp,
}

/// What is put together next.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub daily: bool,
    /// Of that day, oldest first; only for its summary.
    pub paragraphs: Vec<Synthesis>,
    /// What is in no paragraph, in the order in which it happened.
    pub events: Vec<Event>,
    pub from: Timestamp,
    pub to: Timestamp,
    count: usize,
    last_event: i64,
    day: (Timestamp, Timestamp),
    /// Up to where others went when this was read.
    known: i64,
}

/// Up to which event each day is put together, today first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(pub [i64; DAYS]);

impl Marks {
    pub(super) fn of(syntheses: &[Synthesis], days: &Days) -> Self {
        let mut marks = [0; DAYS];
        for synthesis in syntheses {
            if let Some(day) = shown_on(synthesis, days) {
                marks[day] = marks[day].max(synthesis.last_event);
            }
        }
        Self(marks)
    }

    pub(super) fn cover(&self, event: &Event, days: &Days) -> bool {
        days.day_of(event.created_at).is_some_and(|day| event.id <= self.0[day])
    }
}

/// Paragraphs are shown while their day lasts, a summary when it is over.
pub(super) fn shown_on(synthesis: &Synthesis, days: &Days) -> Option<usize> {
    days.day_of(synthesis.to).filter(|day| synthesis.daily == (*day > 0))
}

/// Of the days of interest, those that are shown; oldest first.
pub(super) fn shown(connection: &Connection, days: &Days) -> Result<Vec<Synthesis>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM working_memory_syntheses
         WHERE to_at >= ?1 AND to_at < ?2 AND daily = (to_at < ?3) ORDER BY last_event DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let values = params![days.earlier.0, days.tomorrow.0, days.today.0, ROWS_MAX];
    let rows = statement.query_map(values, synthesis_of)?;
    let mut found: Vec<Synthesis> = rows.collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}

fn of_day(
    connection: &Connection,
    daily: bool,
    day: (Timestamp, Timestamp),
) -> Result<Vec<Synthesis>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM working_memory_syntheses
         WHERE daily = ?1 AND to_at >= ?2 AND to_at < ?3 ORDER BY last_event LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![daily, day.0.0, day.1.0, ROWS_MAX], synthesis_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn last_of(syntheses: &[Synthesis]) -> i64 {
    syntheses.iter().map(|synthesis| synthesis.last_event).max().unwrap_or_default()
}

pub(super) fn pending(connection: &Connection, days: &Days) -> Result<Pending, DbError> {
    let today = days.bounds(0);
    let paragraphs = of_day(connection, false, today)?;
    let sql =
        "SELECT count(*), count(CASE WHEN id > ?3 THEN 1 END), min(CASE WHEN id > ?3 THEN created_at END)
               FROM working_memory_events WHERE created_at >= ?1 AND created_at < ?2";
    let mut pending = connection.prepare_cached(sql)?.query_row(
        params![today.0.0, today.1.0, last_of(&paragraphs)],
        |row| {
            Ok(Pending {
                today: row.get(0)?,
                unread: row.get(1)?,
                oldest: row.get::<_, Option<i64>>(2)?.map(Timestamp),
                paragraphs: paragraphs.len(),
                last_made: paragraphs.iter().map(|paragraph| paragraph.made_at).max(),
                days: Vec::new(),
            })
        },
    )?;
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM working_memory_syntheses
                                  WHERE daily = 1 AND to_at >= ?1 AND to_at < ?2)
                      AND (SELECT count(*) FROM (SELECT 1 FROM working_memory_events
                           WHERE created_at >= ?1 AND created_at < ?2 LIMIT ?3)) >= ?3";
    for number in 1..DAYS {
        let (start, end) = days.bounds(number);
        let values = params![start.0, end.0, DAY_EVENTS_MIN];
        if connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))? {
            pending.days.push(number);
        }
    }
    Ok(pending)
}

/// The oldest events of today that are in no paragraph.
pub(super) fn of_today(connection: &Connection, days: &Days) -> Result<Option<Batch>, DbError> {
    let day = days.bounds(0);
    let known = last_of(&of_day(connection, false, day)?);
    let events = store::of_day(connection, day, known, "id", BATCH_EVENTS_MAX)?;
    let times = || events.iter().map(|event| event.created_at);
    let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(None) };
    let last_event = events.iter().map(|event| event.id).max().unwrap_or(known);
    let count = events.len();
    Ok(Some(Batch { daily: false, paragraphs: Vec::new(), events, from, to, count, last_event, day, known }))
}

/// All of a day that is over and has no summary.
pub(super) fn of_past(connection: &Connection, days: &Days, number: usize) -> Result<Option<Batch>, DbError> {
    let day = days.bounds(number);
    if !of_day(connection, true, day)?.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT count(*), min(created_at), max(created_at), max(id) FROM working_memory_events
               WHERE created_at >= ?1 AND created_at < ?2";
    let all = connection.prepare_cached(sql)?.query_row([day.0.0, day.1.0], |row| {
        let time = |column| row.get::<_, Option<i64>>(column).map(|time| time.map(Timestamp));
        Ok((row.get::<_, usize>(0)?, time(1)?, time(2)?, row.get::<_, Option<i64>>(3)?))
    })?;
    let (count, Some(from), Some(to), Some(last_event)) = all else { return Ok(None) };
    let paragraphs = of_day(connection, false, day)?;
    let order = "importance DESC, id DESC";
    let mut events = store::of_day(connection, day, last_of(&paragraphs), order, BATCH_EVENTS_MAX)?;
    events.sort_by_key(|event| (event.created_at, event.id));
    Ok(Some(Batch { daily: true, paragraphs, events, from, to, count, last_event, day, known: 0 }))
}

/// Stores what a model made of the batch; false, and nothing is, where somebody else was quicker.
pub(super) fn insert(
    connection: &Connection,
    batch: &Batch,
    text: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    if last_of(&of_day(connection, batch.daily, batch.day)?) != batch.known {
        return Ok(false);
    }
    let sql = "INSERT INTO working_memory_syntheses
                   (daily, text, from_at, to_at, events, last_event, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        batch.daily,
        single_line(text, TEXT_BYTES_MAX),
        batch.from.0,
        batch.to.0,
        batch.count,
        batch.last_event,
        now.0,
    ])?;
    Ok(true)
}

pub(super) fn forget(connection: &Connection, before: Timestamp) -> Result<usize, DbError> {
    let sql = "DELETE FROM working_memory_syntheses WHERE to_at < ?1";
    Ok(connection.prepare_cached(sql)?.execute([before.0])?)
}

fn synthesis_of(row: &Row<'_>) -> rusqlite::Result<Synthesis> {
    Ok(Synthesis {
        id: row.get(0)?,
        daily: row.get(1)?,
        text: row.get(2)?,
        from: Timestamp(row.get(3)?),
        to: Timestamp(row.get(4)?),
        events: row.get(5)?,
        last_event: row.get(6)?,
        made_at: Timestamp(row.get(7)?),
    })
}
