//! What happened since a moment, told from what is stored.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::id::ConversationId;

/// Conversations and runs that a day shows: a page, not a log.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Default, Serialize)]
pub struct Day {
    /// The busiest first.
    pub talks: Vec<DayTalk>,
    /// The latest first; branches and workers.
    pub runs: Vec<DayRun>,
    /// All of them, also those that are not shown.
    pub messages: usize,
    pub answers: usize,
    pub conversations: usize,
    pub branches: usize,
    pub workers: usize,
    pub failed_runs: usize,
}

#[derive(Debug, Serialize)]
pub struct DayTalk {
    pub name: String,
    pub messages: usize,
    pub answers: usize,
}

#[derive(Debug, Serialize)]
pub struct DayRun {
    pub process: String,
    pub what: String,
    /// As `branch_runs.status` or `worker_runs.outcome_kind` have it.
    pub outcome: String,
}

/// A condition on the conversation that an empty parameter switches off.
const HERE: &str = "(?2 IS NULL OR channel_id = ?2)";

pub(super) fn since(
    connection: &Connection,
    since: Timestamp,
    conversation: Option<&ConversationId>,
) -> Result<Day, DbError> {
    let here = conversation.map(ConversationId::as_str);
    let mut day = Day::default();
    let sql = format!(
        "SELECT coalesce(c.display_name, m.channel_id), sum(m.role = 'user'), sum(m.role = 'assistant')
         FROM conversation_messages m LEFT JOIN channels c ON c.id = m.channel_id
         WHERE m.created_at >= ?1 AND {} GROUP BY m.channel_id ORDER BY count(*) DESC",
        HERE.replace("channel_id", "m.channel_id")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![since.0, here])?;
    while let Some(row) = rows.next()? {
        let talk = DayTalk { name: row.get(0)?, messages: row.get(1)?, answers: row.get(2)? };
        day.conversations += 1;
        day.messages += talk.messages;
        day.answers += talk.answers;
        if day.talks.len() < SHOWN_MAX {
            day.talks.push(talk);
        }
    }
    let sql = format!(
        "SELECT 'branch', id, description, status FROM branch_runs WHERE started_at >= ?1 AND {HERE}
         UNION ALL
         SELECT 'worker', id, task, coalesce(outcome_kind, status) FROM worker_runs WHERE started_at >= ?1 AND {HERE}
         ORDER BY 2 DESC"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![since.0, here])?;
    while let Some(row) = rows.next()? {
        let (kind, outcome): (String, String) = (row.get(0)?, row.get(3)?);
        *(if kind == "branch" { &mut day.branches } else { &mut day.workers }) += 1;
        day.failed_runs += usize::from(matches!(outcome.as_str(), "failed" | "timeout"));
        if day.runs.len() < SHOWN_MAX {
            let process = format!("{kind}:{}", row.get::<_, i64>(1)?);
            day.runs.push(DayRun { process, what: row.get(2)?, outcome });
        }
    }
    Ok(day)
}
