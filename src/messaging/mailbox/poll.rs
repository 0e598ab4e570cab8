//! The answers go out.

use std::time::Duration;

use serde::Serialize;

use super::{Mailbox, check_id, failure, invalid, message_id};
use crate::error::log_line;
use crate::http::server::{Outcome, Request, Response};
use crate::id::{ConversationId, OutboxId};
use crate::message::{Content, Delivery, Outbound, OutboxError};

/// Longest long poll; proxies give up after a minute.
const MAX_WAIT_SECONDS: u64 = 30;
/// Most messages of one response.
const MAX_MESSAGES: usize = 100;
/// Bytes of text after which a response takes no further message. The first always fits.
const MAX_TEXT_BYTES: usize = 512 << 10;
/// Rounds of [`MAX_MESSAGES`] that one poll acknowledges at most; the next one goes on.
const MAX_ACKNOWLEDGE_ROUNDS: usize = 100;

#[derive(Debug, PartialEq, Eq)]
struct Query {
    wait: Duration,
    after: Option<OutboxId>,
    limit: usize,
}

#[derive(Serialize)]
struct Answers<'a> {
    messages: Vec<Answer<'a>>,
}

#[derive(Serialize)]
struct Answer<'a> {
    id: OutboxId,
    #[serde(flatten)]
    content: What<'a>,
    in_reply_to: Vec<&'a str>,
    created_at: String,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What<'a> {
    Text { content: &'a str },
    Reaction { emoji: &'a str, target: &'a str },
}

impl Mailbox {
    /// The pending answers of a conversation, given by the client's id for it.
    pub fn poll(&self, id: &str, request: &Request<'_>) -> Outcome {
        let query = match check_id("conversation_id", id).and_then(|()| read_query(request)) {
            Ok(query) => query,
            Err(refusal) => return Outcome::Respond(refusal),
        };
        let conversation = self.conversation(id);
        let response = match query.after {
            Some(after) => self.poll_after(id, &conversation, after, query.limit, request.attempt == 0),
            None => self.poll_once(id, &conversation, query.limit),
        };
        match response {
            Ok(Some(response)) => Outcome::Respond(response),
            Ok(None) if query.wait > Duration::ZERO && !request.expired => {
                Outcome::Park { key: conversation.as_str().to_owned(), wait: query.wait }
            }
            // Another poll may have found this conversation in our hand and parked.
            Ok(None) => Outcome::Respond(render(id, &[]).wake_after(conversation.as_str())),
            Err(error) => Outcome::Respond(failure(&error)),
        }
    }

    /// Returns what is above `after`, as often as it is asked for.
    fn poll_after(
        &self,
        id: &str,
        conversation: &ConversationId,
        after: OutboxId,
        limit: usize,
        must_acknowledge: bool,
    ) -> Result<Option<Response>, OutboxError> {
        if must_acknowledge {
            self.acknowledge(conversation, after)?;
        }
        let rows = self.pending(conversation, after, limit)?;
        Ok((!rows.is_empty()).then(|| render(id, &rows)))
    }

    fn acknowledge(&self, conversation: &ConversationId, up_to: OutboxId) -> Result<(), OutboxError> {
        for _ in 0..MAX_ACKNOWLEDGE_ROUNDS {
            let rows = self.outbox.pending(&self.instance, Some(conversation), OutboxId(0), MAX_MESSAGES)?;
            let ids: Vec<OutboxId> = rows.iter().map(|row| row.id).filter(|id| *id <= up_to).collect();
            if ids.is_empty() {
                return Ok(());
            }
            if ids.len() < MAX_MESSAGES {
                // What a crash forgets of this the client says again with its next poll.
                return self.outbox.acknowledge(&ids, conversation);
            }
            self.outbox.record(&ids, conversation, Delivery::Sent { platform_id: None })?;
        }
        Ok(())
    }

    /// Returns what is pending and records it as sent once the response is on its way. Until then
    /// the lease keeps other polls away from these rows.
    fn poll_once(
        &self,
        id: &str,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Option<Response>, OutboxError> {
        let Some(mut lease) = self.polls.acquire(conversation) else { return Ok(None) };
        if !lease.left().is_empty() {
            // Handed out before; as long as that cannot be recorded, nothing more is.
            self.outbox.record(lease.left(), conversation, Delivery::Sent { platform_id: None })?;
            lease.leave(Vec::new());
        }
        let rows = self.pending(conversation, OutboxId(0), limit)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let ids: Vec<OutboxId> = rows.iter().map(|row| row.id).collect();
        let (outbox, owner) = (self.outbox.clone(), conversation.clone());
        let record = move |was_sent: bool| {
            if !was_sent {
                return;
            }
            if let Err(error) = outbox.record(&ids, &owner, Delivery::Sent { platform_id: None }) {
                log::warn!("answers were sent but not recorded, that is tried again: {}", log_line(&error));
                lease.leave(ids);
            }
        };
        Ok(Some(render(id, &rows).after_sent(record).wake_after(conversation.as_str())))
    }

    /// The next rows, as many as one response takes.
    fn pending(
        &self,
        conversation: &ConversationId,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        let mut rows = self.outbox.pending(&self.instance, Some(conversation), after, limit)?;
        let mut bytes = 0;
        let fitting = rows.iter().take_while(|row| {
            let is_first = bytes == 0;
            bytes += 1 + text_bytes(&row.content);
            is_first || bytes <= MAX_TEXT_BYTES
        });
        rows.truncate(fitting.count());
        Ok(rows)
    }
}

fn text_bytes(content: &Content) -> usize {
    match content {
        Content::Text { text } => text.len(),
        Content::Reaction { emoji, target } => emoji.len() + target.len(),
    }
}

fn render(conversation: &str, rows: &[Outbound]) -> Response {
    let messages = rows.iter().map(|row| Answer {
        id: row.id,
        content: match &row.content {
            Content::Text { text } => What::Text { content: text },
            Content::Reaction { emoji, target } => {
                What::Reaction { emoji, target: message_id(conversation, target) }
            }
        },
        in_reply_to: row.answers.iter().map(|answer| message_id(conversation, answer)).collect(),
        created_at: row.created_at.to_rfc3339(),
    });
    Response::json(200, &Answers { messages: messages.collect() })
}

fn read_query(request: &Request<'_>) -> Result<Query, Response> {
    let (mut wait, mut after, mut limit) = (None, None, None);
    for (name, value) in request.parameters().map_err(|reason| invalid(format_args!("Here {reason}.")))? {
        let (slot, range) = match &*name {
            "wait" => (&mut wait, 0..=MAX_WAIT_SECONDS),
            "after" => (&mut after, 0..=i64::MAX.unsigned_abs()),
            "limit" => (&mut limit, 1..=MAX_MESSAGES as u64),
            _ => return Err(invalid(format_args!("There is no parameter {name:?}."))),
        };
        let number = value.parse::<u64>().ok().filter(|number| range.contains(number));
        if number.is_none() || slot.is_some() {
            let (low, high) = (range.start(), range.end());
            return Err(invalid(format_args!(
                "The parameter {name} must be given once, from {low} to {high}."
            )));
        }
        *slot = number;
    }
    Ok(Query {
        wait: Duration::from_secs(wait.unwrap_or(0)),
        after: after.map(|after| OutboxId(i64::try_from(after).unwrap_or(i64::MAX))),
        limit: limit.map_or(MAX_MESSAGES, |limit| usize::try_from(limit).unwrap_or(MAX_MESSAGES)),
    })
}
