//! What became of one message: the runs that it led to, one after the other, and the answers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::journal::{self, Record};
use super::requests::{self, Request};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};

/// Runs that are looked through for those of one message; more began since than anybody explains.
const BEGUN_MAX: usize = 10_000;
/// Runs of one message that are told.
const RUNS_MAX: usize = 64;

/// A message, what it led to and what was answered.
#[derive(Debug, Clone)]
pub struct Explanation {
    pub platform_id: String,
    pub conversation: String,
    pub sender: String,
    pub content: String,
    pub received_at: Timestamp,
    /// None while no turn has answered it or decided not to.
    pub answered_at: Option<Timestamp>,
    /// In the order in which they began.
    pub runs: Vec<Run>,
    pub answers: Vec<Answer>,
    /// What was asked of other agents for it.
    pub requests: Vec<Request>,
}

/// One run with its records.
#[derive(Debug, Clone)]
pub struct Run {
    pub number: u64,
    pub records: Vec<Record>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    /// JSON of `message::Content`.
    pub content: Value,
    /// `pending`, `sending`, `sent`, `refused` or `unknown`.
    pub state: String,
    pub created_at: Timestamp,
}

/// The message with this platform id (its end is enough), the last one without an id.
pub(super) fn explain(connection: &Connection, id: Option<&str>) -> Result<Option<Explanation>, DbError> {
    let sql = "SELECT platform_id, conversation_id, sender_name, content, received_at, answered_at FROM inbox
               WHERE ?1 IS NULL OR platform_id = ?1 OR substr(platform_id, -length(?1)) = ?1
               ORDER BY platform_id = ?1 DESC, id DESC LIMIT 1";
    let found = connection
        .prepare(sql)?
        .query_row([id], |row| {
            Ok(Explanation {
                platform_id: row.get(0)?,
                conversation: row.get(1)?,
                sender: row.get(2)?,
                content: row.get(3)?,
                received_at: Timestamp(row.get(4)?),
                answered_at: row.get::<_, Option<i64>>(5)?.map(Timestamp),
                runs: Vec::new(),
                answers: Vec::new(),
                requests: Vec::new(),
            })
        })
        .optional()?;
    let Some(mut explanation) = found else { return Ok(None) };
    let (conversation, received) = (&explanation.conversation, explanation.received_at);
    explanation.requests =
        requests::of_message(connection, conversation, &explanation.platform_id, received)?;
    for number in runs_of(connection, &explanation)? {
        explanation.runs.push(Run { number, records: journal::of(connection, number)? });
    }
    explanation.answers = answers(connection, &explanation)?;
    Ok(Some(explanation))
}

/// A turn that read the message, what it started, and the turns that told the results of these.
fn runs_of(connection: &Connection, message: &Explanation) -> Result<Vec<u64>, DbError> {
    let (mut runs, mut started) = (Vec::new(), BTreeSet::new());
    started.extend(message.requests.iter().map(|request| format!("delegation:{}", request.id)));
    let heard = journal::heard(connection, message.received_at, &message.platform_id)?;
    let heard_by = heard.as_ref().map(|(run, _)| *run);
    let mut begun = journal::begun(connection, message.received_at, BEGUN_MAX)?;
    begun.retain(|(run, _)| Some(*run) != heard_by);
    for (run, start) in heard.into_iter().chain(begun) {
        let has = |list: &str, wanted: &dyn Fn(&str) -> bool| {
            start[list].as_array().into_iter().flatten().filter_map(Value::as_str).any(wanted)
        };
        let reads = heard_by == Some(run) || has("messages", &|id| id == message.platform_id);
        let tells = has("results", &|process| started.contains(process));
        let kind = start["kind"].as_str().unwrap_or_default();
        let is_started = started.contains(&format!("{kind}:{run}"));
        if !(reads || tells || is_started) {
            continue;
        }
        for record in journal::of(connection, run)? {
            let Some(result) = record.payload["result"].as_str() else { continue };
            let result: Value = serde_json::from_str(result).unwrap_or_default();
            started.extend(result["started"].as_str().map(str::to_owned));
        }
        runs.push(run);
        if runs.len() == RUNS_MAX {
            break;
        }
    }
    Ok(runs)
}

fn answers(connection: &Connection, message: &Explanation) -> Result<Vec<Answer>, DbError> {
    let sql = "SELECT content, state, created_at FROM outbox
               WHERE conversation_id = ?1 AND created_at >= ?2
                   AND EXISTS (SELECT 1 FROM json_each(answers) WHERE value = ?3) ORDER BY id LIMIT ?4";
    let mut statement = connection.prepare(sql)?;
    let limit = i64::try_from(RUNS_MAX).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![message.conversation, message.received_at.0, message.platform_id, limit],
        |row| {
            Ok(Answer {
                content: serde_json::from_str(row.get_ref(0)?.as_str()?).unwrap_or_default(),
                state: row.get(1)?,
                created_at: Timestamp(row.get(2)?),
            })
        },
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}
