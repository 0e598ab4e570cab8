//! Messages that came in; a row is unanswered until the turn that answered it is committed.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::event::Received;
use crate::id::{ConversationId, InboxId, InstanceId};
use crate::message::{Inbound, Lane};

use super::visit::SCHEDULED;
use super::{Place, Unfinished, attachments};

/// Conversations that one recovery lists; a daemon that stopped with more takes the rest next time
/// one of them gets a message.
const MAX_UNFINISHED: usize = 4096;

pub(super) fn insert(
    connection: &Connection,
    message: &Inbound,
    now: Timestamp,
) -> Result<Option<InboxId>, DbError> {
    let sql =
        "INSERT INTO inbox (instance, platform_id, conversation_id, sender_id, sender_name, content, place,
                   direct, addressed, sent_at, received_at, command)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
               ON CONFLICT (instance, platform_id) DO NOTHING RETURNING id";
    let values = params![
        message.instance.as_str(),
        message.platform_id,
        message.conversation.as_str(),
        message.sender_id,
        message.sender_name,
        message.content,
        message.place,
        message.direct,
        message.addressed,
        message.sent_at.0,
        now.0,
        message.lane() == Lane::Commands,
    ];
    let id = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
    Ok(id.map(InboxId))
}

pub(super) fn unanswered(
    connection: &Connection,
    conversation: &ConversationId,
    lane: Lane,
    limit: usize,
) -> Result<Vec<Received>, DbError> {
    let sql = "SELECT id, instance, platform_id, conversation_id, sender_id, sender_name, content, place,
                      direct, addressed, sent_at
               FROM inbox WHERE conversation_id = ?1 AND answered_at IS NULL AND command = ?3 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map(params![conversation.as_str(), limit, lane == Lane::Commands], received)?;
    let mut messages: Vec<Received> = rows.collect::<Result<_, _>>()?;
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return Ok(messages) };
    for (id, attachment) in attachments::between(connection, first.id, last.id)? {
        // Between them may stand messages of other conversations.
        if let Ok(at) = messages.binary_search_by_key(&id, |received| received.id) {
            messages[at].attachments.push(attachment);
        }
    }
    Ok(messages)
}

fn received(row: &Row<'_>) -> Result<Received, crate::db::rusqlite::Error> {
    let message = Inbound {
        instance: InstanceId::new(row.get_ref(1)?.as_str()?),
        platform_id: row.get(2)?,
        conversation: ConversationId::new(row.get_ref(3)?.as_str()?),
        agent: None,
        sender_id: row.get(4)?,
        sender_name: row.get(5)?,
        content: row.get(6)?,
        place: row.get(7)?,
        direct: row.get(8)?,
        addressed: row.get(9)?,
        sent_at: Timestamp(row.get(10)?),
    };
    Ok(Received { id: InboxId(row.get(0)?), message, attachments: Vec::new() })
}

pub(super) fn answer(connection: &Connection, id: InboxId, now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE inbox SET answered_at = ?2 WHERE id = ?1 AND answered_at IS NULL";
    if connection.prepare_cached(sql)?.execute(params![id.0, now.0])? == 1 {
        return Ok(());
    }
    Err(DbError::Refused(format!("message {id} is answered already")))
}

/// Conversations with unanswered messages or results that wait; visits are not among them, whoever
/// began one ends it.
pub(super) fn unfinished(connection: &Connection) -> Result<Vec<Unfinished>, DbError> {
    let sql = "SELECT conversation_id, instance, direct, place, max(id), 0, command FROM inbox
               WHERE answered_at IS NULL AND instance <> ?2 GROUP BY conversation_id, command
               UNION ALL
               SELECT id, instance, direct, coalesce(display_name, id), NULL, 1, 0 FROM channels WHERE instance <> ?2 AND id IN
                   (SELECT channel_id FROM branch_runs WHERE relayed = 0
                    UNION SELECT channel_id FROM worker_runs WHERE relayed = 0
                    UNION SELECT conversation_id FROM link_requests WHERE state = 'answered' AND relayed = 0)
               UNION ALL
               SELECT DISTINCT channel_id, 'cortex', 1, channel_id, NULL, 1, 0 FROM worker_runs
                   WHERE relayed = 0 AND channel_id LIKE 'cortex:%'
               LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![MAX_UNFINISHED, SCHEDULED], |row| {
        let place = Place {
            conversation: ConversationId::new(row.get_ref(0)?.as_str()?),
            instance: InstanceId::new(row.get_ref(1)?.as_str()?),
            direct: row.get(2)?,
            name: row.get(3)?,
        };
        let lane = if row.get(6)? { Lane::Commands } else { Lane::Talk };
        let newest = row.get::<_, Option<i64>>(4)?.map(InboxId);
        Ok(Unfinished { place, lane, newest, results: row.get(5)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
