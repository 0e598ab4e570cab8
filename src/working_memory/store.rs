//! The SQL of the table `working_memory_events`.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, named_params, params};

use super::event::{Asked, Event, EventKind, NewEvent, TEXT_BYTES_MAX, single_line};
use super::synthesis::Marks;
use super::{Days, PAST_EVENTS_MAX, Seen};
use crate::clock::Timestamp;
use crate::config::WorkingMemoryConfig;
use crate::db::{DbError, rusqlite};
use crate::id::{ConversationId, InstanceId};

/// Rows that one pass deletes at most: some milliseconds of the writing thread.
const ROWS_MAX: usize = 4096;

const COLUMNS: &str = "id, kind, channel_id, direct, text, importance, run, message, created_at";

pub(super) fn insert(connection: &Connection, event: &NewEvent, now: Timestamp) -> Result<(), DbError> {
    let importance = event.importance.unwrap_or_else(|| event.kind.importance()).clamp(0.0, 1.0);
    let sql = "INSERT INTO working_memory_events
                   (kind, channel_id, direct, text, importance, run, message, created_at, asked_by)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        event.kind.as_str(),
        event.conversation.as_ref().map(ConversationId::as_str),
        event.direct,
        single_line(&event.text, TEXT_BYTES_MAX),
        importance,
        event.run.map(|run| run.to_string()),
        event.message,
        now.0,
        asked_by(connection, event)?,
    ])?;
    Ok(())
}

/// Who has written all messages that asked for it, as `<instance>:<sender>`; nobody where several have, or one
/// of the messages is not known any more.
fn asked_by(connection: &Connection, event: &NewEvent) -> Result<Option<String>, DbError> {
    let Asked { instance, messages } = &event.asked;
    let Some(conversation) = event.conversation.as_ref().filter(|_| !messages.is_empty()) else {
        return Ok(None);
    };
    let sql = "SELECT CASE WHEN count(*) = ?3 AND count(DISTINCT i.sender_id) = 1
                           THEN min(i.instance || ':' || i.sender_id) END
               FROM json_each(?4) AS asked CROSS JOIN inbox i
               WHERE i.platform_id = asked.value AND i.conversation_id = ?1
                 AND i.instance = coalesce(?2, (SELECT instance FROM channels WHERE id = ?1))";
    let values = params![
        conversation.as_str(),
        instance.as_ref().map(InstanceId::as_str),
        messages.len(),
        serde_json::json!(messages).to_string()
    ];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}

/// The latest events in company that are about each of these people, who are known by these names
/// (`<instance>:<sender>`); each with the index of the person. That a worker was started is said by its end.
pub(super) fn of_people(
    connection: &Connection,
    people: &[Vec<String>],
    limit: usize,
) -> Result<Vec<(usize, Event)>, DbError> {
    let names =
        people.iter().enumerate().flat_map(|(person, names)| names.iter().map(move |name| (person, name)));
    let names = serde_json::json!(names.collect::<Vec<_>>()).to_string();
    let mut statement = connection.prepare_cached(OF_PEOPLE)?;
    let values = params![names, limit, EventKind::WorkerSpawned.as_str()];
    let rows = statement.query_map(values, |row| Ok((row.get(9)?, event_of(row)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) const OF_PEOPLE: &str = "
    SELECT e.id, kind, channel_id, direct, text, importance, run, message, created_at, name.value ->> 0
    FROM json_each(?1) AS name CROSS JOIN working_memory_events e
    WHERE e.id IN (SELECT id FROM working_memory_events
                   WHERE asked_by = name.value ->> 1 AND direct = 0 AND kind <> ?3 ORDER BY id DESC LIMIT ?2)
    ORDER BY e.id DESC";

/// The newest events, among which one is looked for that was written a moment ago.
const TOLD_WITHIN: usize = 256;

/// Whether the run of this event has one of its kind.
pub(super) fn is_told(connection: &Connection, event: &NewEvent) -> Result<bool, DbError> {
    let Some(run) = event.run else { return Ok(false) };
    let sql =
        "SELECT EXISTS (SELECT 1 FROM (SELECT run, kind FROM working_memory_events ORDER BY id DESC LIMIT ?3)
               WHERE run = ?1 AND kind = ?2)";
    let values = params![run.to_string(), event.kind.as_str(), TOLD_WITHIN];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}

/// Events that are counted at most: far above every threshold.
const COUNTED_MAX: usize = 1_000;

pub(super) fn happened(
    connection: &Connection,
    conversation: &ConversationId,
    since: Timestamp,
) -> Result<usize, DbError> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM working_memory_events
               WHERE created_at > ?1 AND channel_id = ?2 AND kind <> ?3 LIMIT ?4)";
    let kind = EventKind::MemorySaved.as_str();
    let values = params![since.0, conversation.as_str(), kind, COUNTED_MAX];
    Ok(connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?)
}

/// What a prompt may show, and a little more, so that it can be seen when there is too much: of today
/// the newest and the newest important ones, of the other days the most important ones. The inner
/// parts read the index alone. What a synthesis of its day covers is left out.
pub(super) const RECENT: &str = "
    WITH lately AS NOT MATERIALIZED (
        SELECT id, created_at, importance, channel_id FROM working_memory_events
        WHERE created_at >= :earlier AND created_at < :tomorrow
          AND id > CASE WHEN created_at >= :today THEN :mark0 WHEN created_at >= :yesterday THEN :mark1
                        WHEN created_at >= :day2 THEN :mark2 WHEN created_at >= :day3 THEN :mark3
                        WHEN created_at >= :day4 THEN :mark4 WHEN created_at >= :day5 THEN :mark5
                        ELSE :mark6 END
          AND NOT (channel_id IS :seen AND created_at >= :seen_from)),
    picked AS (
        SELECT * FROM (SELECT id FROM lately WHERE created_at >= :today
            ORDER BY created_at DESC, importance DESC, channel_id DESC, id DESC LIMIT :most)
        UNION
        SELECT * FROM (SELECT id FROM lately WHERE created_at >= :today AND importance >= :least
            ORDER BY created_at DESC, importance DESC, channel_id DESC, id DESC LIMIT :most)
        UNION
        SELECT * FROM (SELECT id FROM lately WHERE created_at >= :yesterday AND created_at < :today
            ORDER BY importance DESC, created_at DESC, channel_id DESC, id DESC LIMIT :past)
        UNION
        SELECT * FROM (SELECT id FROM lately WHERE created_at < :yesterday
            ORDER BY importance DESC, created_at DESC, channel_id DESC, id DESC LIMIT :past))
    SELECT e.id, kind, channel_id, direct, text, importance, run, message, created_at
    FROM picked JOIN working_memory_events e ON e.id = picked.id";

pub(super) fn recent(
    connection: &Connection,
    days: &Days,
    Marks(marks): Marks,
    seen: Option<Seen<'_>>,
    config: &WorkingMemoryConfig,
) -> Result<Vec<Event>, DbError> {
    let mut statement = connection.prepare_cached(RECENT)?;
    let rows = statement.query_map(
        named_params! {
            ":earlier": days.earlier.0,
            ":yesterday": days.yesterday.0,
            ":today": days.today.0,
            ":tomorrow": days.tomorrow.0,
            ":day2": days.begins[2].0,
            ":day3": days.begins[3].0,
            ":day4": days.begins[4].0,
            ":day5": days.begins[5].0,
            ":mark0": marks[0],
            ":mark1": marks[1],
            ":mark2": marks[2],
            ":mark3": marks[3],
            ":mark4": marks[4],
            ":mark5": marks[5],
            ":mark6": marks[6],
            ":seen": seen.map_or("", |seen| seen.conversation.as_str()),
            ":seen_from": seen.map_or(i64::MAX, |seen| seen.from.0),
            ":least": config.min_importance,
            // One more than is shown: so it can be seen that there are more.
            ":most": config.today_max_events + 1,
            ":past": PAST_EVENTS_MAX + 1,
        },
        event_of,
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn newest(connection: &Connection, limit: usize) -> Result<Vec<Event>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM working_memory_events ORDER BY id DESC LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], event_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first events of a day behind one, by an order.
pub(super) fn of_day(
    connection: &Connection,
    (start, end): (Timestamp, Timestamp),
    behind: i64,
    order: &'static str,
    limit: usize,
) -> Result<Vec<Event>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM working_memory_events
         WHERE created_at >= ?1 AND created_at < ?2 AND id > ?3 ORDER BY {order} LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![start.0, end.0, behind, limit], event_of)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes what is from before `before`. The newest row stays, so that ids are not given twice.
pub(super) fn forget(connection: &Connection, before: Timestamp) -> Result<usize, DbError> {
    let sql = "DELETE FROM working_memory_events WHERE id IN (
                   SELECT id FROM working_memory_events WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)
               AND id < (SELECT max(id) FROM working_memory_events)";
    Ok(connection.prepare_cached(sql)?.execute(params![before.0, ROWS_MAX])?)
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<Event> {
    let kind = row.get_ref(1)?.as_str()?.parse();
    Ok(Event {
        id: row.get(0)?,
        kind: kind.map_err(|error: super::event::UnknownKind| {
            rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(error))
        })?,
        conversation: row.get::<_, Option<String>>(2)?.map(ConversationId::new),
        direct: row.get(3)?,
        text: row.get(4)?,
        importance: row.get(5)?,
        run: row.get(6)?,
        message: row.get(7)?,
        created_at: Timestamp(row.get(8)?),
    })
}
