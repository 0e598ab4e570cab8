//! What stands next to a memory: in the same conversation, shortly before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::Memory;
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};

/// A longer pause ends a session: people who go on after it begin a new subject as a rule.
const PAUSE: Duration = Duration::from_secs(30 * 60);
/// Rows that are looked at; a flood within half an hour is no conversation.
const ROWS_MAX: usize = 4_000;

/// The sessions of some memories.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Vec<Vec<String>>);

impl Neighbours {
    /// Ids in the order in which they were said.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &[String]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// One statement, however many memories there are.
    pub(super) fn load<'a>(
        connection: &Connection,
        memories: impl Iterator<Item = &'a Memory>,
        memory_type: Option<&str>,
    ) -> Result<Self, DbError> {
        let windows = windows(memories);
        if windows.is_empty() {
            return Ok(Self::default());
        }
        let windows: Vec<_> = windows
            .iter()
            .flat_map(|(channel, spans)| {
                spans.iter().map(move |(from, to)| serde_json::json!([channel, from.0, to.0]))
            })
            .collect();
        let sql = "SELECT m.id, m.channel_id, m.created_at FROM json_each(?1) w
                       JOIN memories m ON m.forgotten = 0 AND m.channel_id = w.value ->> 0
                           AND m.created_at BETWEEN w.value ->> 1 AND w.value ->> 2
                   WHERE ?2 IS NULL OR m.memory_type = ?2
                   ORDER BY m.channel_id, m.created_at, m.id LIMIT ?3";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows =
            statement.query(params![serde_json::Value::from(windows).to_string(), memory_type, ROWS_MAX])?;
        let mut sessions: Vec<Vec<String>> = Vec::new();
        let mut last: Option<(String, Timestamp)> = None;
        while let Some(row) = rows.next()? {
            let (id, channel, at): (String, String, Timestamp) =
                (row.get(0)?, row.get(1)?, Timestamp(row.get(2)?));
            let goes_on =
                last.as_ref().is_some_and(|(before, time)| *before == channel && at.since(*time) <= PAUSE);
            match sessions.last_mut() {
                Some(session) if goes_on => session.push(id),
                _ => sessions.push(vec![id]),
            }
            last = Some((channel, at));
        }
        sessions.retain(|session| session.len() > 1);
        Ok(Self(sessions))
    }
}

/// For each conversation the spans around its memories, none overlapping another.
fn windows<'a>(memories: impl Iterator<Item = &'a Memory>) -> BTreeMap<&'a str, Vec<(Timestamp, Timestamp)>> {
    let mut times: BTreeMap<&str, Vec<Timestamp>> = BTreeMap::new();
    for memory in memories {
        if let Some(channel) = &memory.channel_id {
            times.entry(channel).or_default().push(memory.created_at);
        }
    }
    let merged = |mut times: Vec<Timestamp>| {
        times.sort_unstable();
        let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
        for time in times {
            let (from, to) = (time.minus(PAUSE), time.plus(PAUSE));
            match spans.last_mut() {
                Some(last) if last.1 >= from => last.1 = to,
                _ => spans.push((from, to)),
            }
        }
        spans
    };
    times.into_iter().map(|(channel, times)| (channel, merged(times))).collect()
}
