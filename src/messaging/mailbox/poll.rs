//! The answers go out.

use std::time::Duration;

use serde::Serialize;

use super::{COMMIT_WAIT_MAX, Mailbox, check_id, failure, invalid, late, message_id};
use crate::error::log_line;
use crate::http::server::{Later, Lease, Outcome, Request, Response, Settled, promise};
use crate::id::{ConversationId, OutboxId};
use crate::message::{Content, Delivery, Outbound, OutboxError};
use crate::messaging::drafts::Piece;

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
    /// Number of the draft that was seen, and bytes of it.
    draft: Option<(u64, usize)>,
}

#[derive(Serialize)]
struct Answers<'a> {
    messages: Vec<Answer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draft: Option<Piece>,
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

/// What a plain poll comes to.
enum Found {
    Response(Response),
    Nothing,
    Later(Later),
}

impl Mailbox {
    /// The pending answers of a conversation, given by the client's id for it. Never waits for the disk.
    pub fn poll(&self, id: &str, request: &Request<'_>) -> Outcome {
        let query = match check_id("conversation_id", id).and_then(|()| read_query(request)) {
            Ok(query) => query,
            Err(refusal) => return Outcome::Respond(refusal),
        };
        let conversation = self.conversation(id);
        let found = match query.after {
            Some(after) => self.poll_after(id, &conversation, after, query.limit, request.attempt == 0),
            None => self.poll_once(id, &conversation, query.limit),
        };
        match found {
            Ok(Found::Response(response)) => Outcome::Respond(response),
            Ok(Found::Later(later)) => Outcome::Later(later),
            Ok(Found::Nothing) if let Some(piece) = self.piece(&conversation, &query) => {
                let messages = Vec::new();
                Outcome::Respond(Response::json(200, &Answers { messages, draft: Some(piece) }))
            }
            Ok(Found::Nothing) if query.wait > Duration::ZERO && !request.expired => {
                Outcome::Park { key: conversation.as_str().to_owned(), wait: query.wait }
            }
            // Another poll may have found this conversation in our hand and parked.
            Ok(Found::Nothing) => Outcome::Respond(render(id, &[]).wake_after(conversation.as_str())),
            Err(error) => Outcome::Respond(failure(&error)),
        }
    }

    fn piece(&self, conversation: &ConversationId, query: &Query) -> Option<Piece> {
        let (number, seen) = query.draft?;
        self.drafts.look(conversation, number, seen)
    }

    /// Returns what is above `after`, as often as it is asked for.
    fn poll_after(
        &self,
        id: &str,
        conversation: &ConversationId,
        after: OutboxId,
        limit: usize,
        must_acknowledge: bool,
    ) -> Result<Found, OutboxError> {
        if must_acknowledge {
            self.acknowledge(conversation, after)?;
        }
        let rows = self.pending(conversation, after, limit)?;
        Ok(if rows.is_empty() { Found::Nothing } else { Found::Response(render(id, &rows)) })
    }

    /// What a crash forgets of this the client says again with its next poll.
    fn acknowledge(&self, conversation: &ConversationId, up_to: OutboxId) -> Result<(), OutboxError> {
        let mut last = OutboxId(0);
        for _ in 0..MAX_ACKNOWLEDGE_ROUNDS {
            let rows = self.outbox.pending(&self.instance, Some(conversation), last, MAX_MESSAGES)?;
            let ids: Vec<OutboxId> = rows.iter().map(|row| row.id).filter(|id| *id <= up_to).collect();
            let Some(newest) = ids.last().copied() else { return Ok(()) };
            self.outbox.acknowledge(&ids, conversation)?;
            if ids.len() < MAX_MESSAGES {
                return Ok(());
            }
            last = newest;
        }
        Ok(())
    }

    /// Returns what is pending and records it as sent once the response is on its way. Until that is
    /// on disk the lease keeps other polls away from these rows.
    fn poll_once(&self, id: &str, conversation: &ConversationId, limit: usize) -> Result<Found, OutboxError> {
        let Some(mut lease) = self.polls.acquire(conversation) else { return Ok(Found::Nothing) };
        if !lease.left().is_empty() {
            let ids = lease.left().to_vec();
            lease.leave(Vec::new());
            return Ok(Found::Later(self.record_first(id, conversation, lease, ids)));
        }
        let rows = self.pending(conversation, OutboxId(0), limit)?;
        if rows.is_empty() {
            return Ok(Found::Nothing);
        }
        let ids: Vec<OutboxId> = rows.iter().map(|row| row.id).collect();
        let (outbox, owner) = (self.outbox.clone(), conversation.clone());
        let record = move |was_sent: bool, settled: Settled| {
            if !was_sent {
                return;
            }
            let all = ids.clone();
            let recorded = move |result: Result<(), OutboxError>| {
                if let Err(error) = result {
                    log::warn!(
                        "answers were sent but not recorded, that is tried again: {}",
                        log_line(&error)
                    );
                    lease.leave(ids);
                }
                drop(lease);
                drop(settled);
            };
            outbox.begin_record(&all, &owner, Delivery::Sent { platform_id: None }, Box::new(recorded));
        };
        Ok(Found::Response(render(id, &rows).after_sent(record).wake_after(conversation.as_str())))
    }

    /// These were handed out before; as long as that cannot be recorded, nothing more is. The client
    /// hears how that went and asks again.
    fn record_first(
        &self,
        id: &str,
        conversation: &ConversationId,
        mut lease: Lease<ConversationId, OutboxId>,
        ids: Vec<OutboxId>,
    ) -> Later {
        let (promise, later) = promise(COMMIT_WAIT_MAX, late);
        let (id, key, all) = (id.to_owned(), conversation.as_str().to_owned(), ids.clone());
        let recorded = move |result: Result<(), OutboxError>| {
            let response = match result {
                Ok(()) => render(&id, &[]),
                Err(error) => {
                    lease.leave(ids);
                    failure(&error)
                }
            };
            drop(lease);
            promise.keep(response.wake_after(key));
        };
        let sent = Delivery::Sent { platform_id: None };
        self.outbox.begin_record(&all, conversation, sent, Box::new(recorded));
        later
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
    Response::json(200, &Answers { messages: messages.collect(), draft: None })
}

fn read_query(request: &Request<'_>) -> Result<Query, Response> {
    let (mut wait, mut after, mut limit, mut draft, mut from) = (None, None, None, None, None);
    for (name, value) in request.parameters().map_err(|reason| invalid(format_args!("Here {reason}.")))? {
        let (slot, range) = match &*name {
            "wait" => (&mut wait, 0..=MAX_WAIT_SECONDS),
            "after" => (&mut after, 0..=i64::MAX.unsigned_abs()),
            "limit" => (&mut limit, 1..=MAX_MESSAGES as u64),
            "draft" => (&mut draft, 0..=u64::MAX),
            "from" => (&mut from, 0..=u64::MAX),
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
        draft: draft.map(|draft| (draft, from.map_or(0, |from| usize::try_from(from).unwrap_or(usize::MAX)))),
        limit: limit.map_or(MAX_MESSAGES, |limit| usize::try_from(limit).unwrap_or(MAX_MESSAGES)),
    })
}
