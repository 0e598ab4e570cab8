//! Answers on their way out, committed before they are sent.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::id::{ConversationId, InstanceId, OutboxId};
use crate::message::{Content, Delivery, Outbound};

use super::Place;

/// Since this instant (2025-01-01 UTC, in milliseconds) ids count [`IDS_PER_SECOND`] for each second. Many
/// answers at once, or a clock that went back, only let them run ahead of it.
const IDS_SINCE: i64 = 1_735_689_600_000;
const IDS_PER_SECOND: i64 = 256;

/// Ids follow the clock, so that the answers of two agents in one conversation, which lie in two databases,
/// come in the order in which they were given: a client says which it has by the last id.
pub(super) fn insert(
    connection: &Connection,
    place: &Place,
    content: &Content,
    answers: &[String],
    now: Timestamp,
) -> Result<OutboxId, DbError> {
    let sql = "INSERT INTO outbox (id, instance, conversation_id, content, answers, created_at, updated_at)
               VALUES (max((SELECT coalesce(max(id), 0) + 1 FROM outbox), ?6), ?1, ?2, ?3, ?4, ?5, ?5)";
    let content = json(content)?;
    let by_clock = (now.0 - IDS_SINCE) / 1000 * IDS_PER_SECOND;
    let (instance, conversation) = (place.instance.as_str(), place.conversation.as_str());
    let values = params![instance, conversation, content, json(answers)?, now.0, by_clock];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(OutboxId(connection.last_insert_rowid()))
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Sql(error.to_string()))
}

pub(super) fn pending(
    connection: &Connection,
    instance: &InstanceId,
    conversation: Option<&ConversationId>,
    after: OutboxId,
    limit: usize,
) -> Result<Vec<Outbound>, DbError> {
    let columns =
        "SELECT id, conversation_id, content, answers, created_at FROM outbox WHERE state = 'pending'";
    let read = |row: &crate::db::rusqlite::Row<'_>| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, String>(3)?,
            row.get::<_, i64>(4)?,
        ))
    };
    let rows: Vec<_> = match conversation {
        Some(conversation) => connection
            .prepare_cached(&format!(
                "{columns} AND instance = ?1 AND conversation_id = ?2 AND id > ?3 ORDER BY id LIMIT ?4"
            ))?
            .query_map(params![instance.as_str(), conversation.as_str(), after.0, limit], read)?
            .collect::<Result<_, _>>()?,
        None => connection
            .prepare_cached(&format!("{columns} AND instance = ?1 AND id > ?2 ORDER BY id LIMIT ?3"))?
            .query_map(params![instance.as_str(), after.0, limit], read)?
            .collect::<Result<_, _>>()?,
    };
    let mut pending = Vec::with_capacity(rows.len());
    for (id, conversation, content, answers, created_at) in rows {
        let damaged = |error: serde_json::Error| DbError::Corrupt(format!("outbox row {id}: {error}"));
        pending.push(Outbound {
            id: OutboxId(id),
            instance: instance.clone(),
            conversation: ConversationId::new(conversation),
            content: serde_json::from_str::<Content>(&content).map_err(damaged)?,
            answers: serde_json::from_str(&answers).map_err(damaged)?,
            created_at: Timestamp(created_at),
        });
    }
    Ok(pending)
}

/// A row moves forward only: pending, sending, then one of the terminal states.
pub(super) fn record(
    connection: &Connection,
    ids: &[OutboxId],
    delivery: &Delivery,
    now: Timestamp,
) -> Result<(), DbError> {
    let (state, platform_id, reason) = match delivery {
        Delivery::Sending => ("sending", None, None),
        Delivery::Sent { platform_id } => ("sent", platform_id.as_deref(), None),
        Delivery::Refused { reason } => ("refused", None, Some(reason.as_str())),
        Delivery::Unknown { reason } => ("unknown", None, Some(reason.as_str())),
    };
    let sql = "UPDATE outbox SET state = ?2, platform_id = ?3, reason = ?4, updated_at = ?5
               WHERE id = ?1 AND (state = 'pending' OR (state = 'sending' AND ?2 <> 'sending'))";
    let mut statement = connection.prepare_cached(sql)?;
    for id in ids {
        let changed = statement.execute(params![id.0, state, platform_id, reason, now.0])?;
        if changed == 0 && *delivery == Delivery::Sending {
            return Err(DbError::Refused(format!("answer {id} was sent before")));
        }
    }
    Ok(())
}

pub(super) fn any_sending(connection: &Connection) -> Result<bool, DbError> {
    Ok(connection
        .query_row("SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 'sending')", [], |row| row.get(0))?)
}

/// After a crash nobody knows what became of these; they are not sent again (P2).
pub(super) fn forget_sending(connection: &Connection, now: Timestamp) -> Result<usize, DbError> {
    let sql =
        "UPDATE outbox SET state = 'unknown', reason = 'the daemon stopped while sending', updated_at = ?1
               WHERE state = 'sending'";
    Ok(connection.execute(sql, [now.0])?)
}
