//! What stands between this agent and others, from the rows that carry it ([`super::delegations`]): for whoever
//! looks at it afterwards.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, Row, params};
use crate::id::{AgentId, ConversationId};

use super::Conversations;

/// Requests that one message led to and that are told.
const OF_MESSAGE_MAX: usize = 64;

/// A message to another agent and what came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: i64,
    pub conversation: ConversationId,
    pub target: AgentId,
    pub message: String,
    /// `pending`, `refused`, `delivered` or `answered`.
    pub state: String,
    pub result: Option<String>,
    pub created_at: Timestamp,
    pub answered_at: Option<Timestamp>,
}

impl Request {
    /// Under which it is on the other agent's board.
    pub fn key(&self) -> String {
        super::delegations::key(self.id, self.created_at)
    }
}

const COLUMNS: &str = "id, conversation_id, target, message, state, result, created_at, answered_at";

fn request(row: &Row<'_>) -> Result<Request, crate::db::rusqlite::Error> {
    Ok(Request {
        id: row.get(0)?,
        conversation: ConversationId::new(row.get_ref(1)?.as_str()?),
        target: AgentId::new(row.get_ref(2)?.as_str()?),
        message: row.get(3)?,
        state: row.get(4)?,
        result: row.get(5)?,
        created_at: Timestamp(row.get(6)?),
        answered_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
    })
}

/// What turns have asked of other agents for this message, in order.
pub(super) fn of_message(
    connection: &Connection,
    conversation: &str,
    platform_id: &str,
    since: Timestamp,
) -> Result<Vec<Request>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM link_requests WHERE conversation_id = ?1 AND created_at >= ?2
             AND EXISTS (SELECT 1 FROM json_each(answers) WHERE value = ?3) ORDER BY id LIMIT ?4"
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params![conversation, since.0, platform_id, OF_MESSAGE_MAX], request)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Conversations {
    /// What was asked of this agent or of any, the newest `limit`, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn requests(&self, target: Option<&AgentId>, limit: usize) -> Result<Vec<Request>, DbError> {
        self.db.read(|connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM link_requests WHERE ?1 IS NULL OR target = ?1 ORDER BY id DESC LIMIT ?2"
            );
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map(params![target.map(AgentId::as_str), limit], request)?;
            let mut requests = rows.collect::<Result<Vec<_>, _>>()?;
            requests.reverse();
            Ok(requests)
        })
    }
}
