//! Conversations over HTTP: a client sends messages and polls the answers. The webhook and the local
//! API are two instances of it.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::SharedClock;
use crate::error::{Fault, Kind};
use crate::http::server::{Leases, Outcome, Request, Response, percent_decode};
use crate::id::{AgentId, ConversationId, InstanceId, OutboxId};
use crate::message::{
    Accepted, Content, Delivery, Inbound, Intake, IntakeError, Outbound, Outbox, OutboxError,
};

/// Longest id of a conversation, sender or message, in bytes.
const MAX_ID_BYTES: usize = 200;
/// Longest message, in bytes.
const MAX_CONTENT_BYTES: usize = 100_000;
/// Longest wait of one poll, in seconds.
const MAX_WAIT_SECONDS: u64 = 30;
/// Answers in one poll.
const MAX_ANSWERS: usize = 100;
/// What a client that was refused for the moment should wait, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

pub struct Mailbox {
    instance: InstanceId,
    intake: Arc<dyn Intake>,
    outbox: Arc<dyn Outbox>,
    clock: SharedClock,
    /// One draining poll at a time per conversation; what is left was sent but not yet marked.
    leases: Leases<ConversationId, OutboxId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    conversation_id: String,
    sender_id: String,
    content: String,
    #[serde(default)]
    sender_name: Option<String>,
    #[serde(default)]
    agent_id: Option<String>,
    #[serde(default)]
    message_id: Option<String>,
}

impl Mailbox {
    pub fn new(
        instance: InstanceId,
        intake: Arc<dyn Intake>,
        outbox: Arc<dyn Outbox>,
        clock: SharedClock,
    ) -> Self {
        Self { instance, intake, outbox, clock, leases: Leases::default() }
    }

    /// `POST …/send`: answers after the message is on disk. With a `message_id` of the client's, the
    /// same message sent twice is taken once.
    pub fn send(&self, request: &Request<'_>) -> Response {
        let send: Send = match serde_json::from_slice(request.body) {
            Ok(send) => send,
            Err(error) => return Response::error(400, Kind::Invalid, error),
        };
        if let Err(reason) = check(&send) {
            return Response::error(400, Kind::Invalid, reason);
        }
        let id = send.message_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        match self.intake.accept(self.inbound(send, id.clone())) {
            Ok(Accepted::New(_)) => {
                Response::json(202, &json!({ "accepted": true, "duplicate": false, "message_id": id }))
            }
            Ok(Accepted::Duplicate) => {
                Response::json(202, &json!({ "accepted": true, "duplicate": true, "message_id": id }))
            }
            Ok(Accepted::Refused(reason)) => Response::error(403, Kind::Invalid, reason),
            Err(error @ IntakeError::UnknownAgent(_)) => Response::error(404, Kind::NotFound, error),
            Err(error) => {
                log::error!("a message was not taken: {error}");
                unavailable(&error)
            }
        }
    }

    fn inbound(&self, send: Send, platform_id: String) -> Inbound {
        Inbound {
            instance: self.instance.clone(),
            platform_id,
            conversation: self.conversation(&send.conversation_id),
            agent: send.agent_id.as_deref().map(AgentId::new),
            sender_name: send.sender_name.unwrap_or_else(|| send.sender_id.clone()),
            sender_id: send.sender_id,
            content: send.content,
            sent_at: self.clock.now(),
            direct: true,
            addressed: true,
            place: send.conversation_id,
        }
    }

    fn conversation(&self, id: &str) -> ConversationId {
        ConversationId::new(format!("{}:{id}", self.instance))
    }

    /// `GET …/poll/{conversation}`: without `after`, the answers that wait, which count as delivered
    /// once the response is written; with `after=<id>`, everything up to that id counts as delivered
    /// and everything above it is shown, as often as asked.
    pub fn poll(&self, request: &Request<'_>, conversation: &str) -> Outcome {
        let (conversation, query) = match percent_decode(conversation)
            .ok_or("the address is not readable")
            .and_then(|id| Ok((id, Query::read(request)?)))
        {
            Ok((id, query)) if !id.is_empty() && id.len() <= MAX_ID_BYTES => (self.conversation(&id), query),
            Ok(_) => {
                return Outcome::Respond(Response::error(
                    400,
                    Kind::Invalid,
                    "the conversation id is empty or too long",
                ));
            }
            Err(reason) => return Outcome::Respond(Response::error(400, Kind::Invalid, reason)),
        };
        let answered = match query.after {
            Some(after) => self.show(&conversation, after, query.limit),
            None => self.drain(&conversation, query.limit),
        };
        match answered {
            Ok(Some(response)) => Outcome::Respond(response),
            Ok(None) if query.wait.is_zero() || request.expired => Outcome::Respond(page(&[])),
            Ok(None) => Outcome::Park { key: conversation.to_string(), wait: query.wait },
            Err(error) => Outcome::Respond(unavailable(&error)),
        }
    }

    fn show(
        &self,
        conversation: &ConversationId,
        after: OutboxId,
        limit: usize,
    ) -> Result<Option<Response>, OutboxError> {
        loop {
            let read = self.outbox.pending(&self.instance, Some(conversation), OutboxId(0), MAX_ANSWERS)?;
            let seen: Vec<_> = read.iter().map(|outbound| outbound.id).filter(|id| *id <= after).collect();
            if !seen.is_empty() {
                self.outbox.record(&seen, conversation, Delivery::Sent { platform_id: None })?;
            }
            if seen.len() < MAX_ANSWERS {
                break;
            }
        }
        let rows = self.outbox.pending(&self.instance, Some(conversation), after, limit)?;
        Ok((!rows.is_empty()).then(|| page(&rows)))
    }

    fn drain(&self, conversation: &ConversationId, limit: usize) -> Result<Option<Response>, OutboxError> {
        // Somebody else is being answered; this request is woken when that is done.
        let Some(mut lease) = self.leases.acquire(conversation) else { return Ok(None) };
        if !lease.left.is_empty() {
            self.outbox.record(&lease.left, conversation, Delivery::Sent { platform_id: None })?;
            lease.left.clear();
        }
        let rows = self.outbox.pending(&self.instance, Some(conversation), OutboxId(0), limit)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let ids: Vec<_> = rows.iter().map(|outbound| outbound.id).collect();
        let (outbox, conversation) = (self.outbox.clone(), conversation.clone());
        let key = conversation.to_string();
        let mark = move |sent: bool| {
            if sent
                && let Err(error) = outbox.record(&ids, &conversation, Delivery::Sent { platform_id: None })
            {
                log::warn!("answers that were polled are not marked yet: {error}");
                lease.left = ids;
            }
            drop(lease);
        };
        Ok(Some(page(&rows).after_sent(mark).wake_after(key)))
    }
}

fn unavailable(fault: &dyn Fault) -> Response {
    let response =
        Response::error(503, fault.kind(), "the daemon cannot store or read messages now; try again");
    response.with_header("retry-after", RETRY_AFTER_SECONDS)
}

fn check(send: &Send) -> Result<(), String> {
    let ids = [
        ("conversation_id", Some(&send.conversation_id)),
        ("sender_id", Some(&send.sender_id)),
        ("sender_name", send.sender_name.as_ref()),
        ("message_id", send.message_id.as_ref()),
    ];
    for (name, id) in ids {
        if id.is_some_and(|id| {
            id.trim().is_empty() || id.len() > MAX_ID_BYTES || id.chars().any(char::is_control)
        }) {
            return Err(format!("{name} must be 1 to {MAX_ID_BYTES} bytes of printable text"));
        }
    }
    if send.content.trim().is_empty() || send.content.len() > MAX_CONTENT_BYTES {
        return Err(format!("content must be 1 to {MAX_CONTENT_BYTES} bytes"));
    }
    Ok(())
}

struct Query {
    wait: Duration,
    after: Option<OutboxId>,
    limit: usize,
}

impl Query {
    fn read(request: &Request<'_>) -> Result<Self, &'static str> {
        let mut query = Self { wait: Duration::ZERO, after: None, limit: MAX_ANSWERS };
        for (name, value) in request.parameters()? {
            match (name.as_ref(), value.parse::<u32>()) {
                ("wait", Ok(seconds)) => {
                    query.wait = Duration::from_secs(u64::from(seconds).min(MAX_WAIT_SECONDS))
                }
                ("limit", Ok(limit)) => query.limit = (limit as usize).clamp(1, MAX_ANSWERS),
                ("after", _) => {
                    query.after =
                        Some(OutboxId(value.parse().map_err(|_| "after must be an id of an answer")?))
                }
                ("wait" | "limit", Err(_)) => return Err("wait and limit must be whole numbers"),
                _ => return Err("there are the parameters wait, after and limit"),
            }
        }
        Ok(query)
    }
}

fn page(rows: &[Outbound]) -> Response {
    let messages: Vec<Value> = rows.iter().map(message).collect();
    Response::json(200, &json!({ "messages": messages }))
}

fn message(outbound: &Outbound) -> Value {
    let created_at = outbound.created_at.to_rfc3339();
    match &outbound.content {
        Content::Text { text } => {
            json!({ "id": outbound.id, "kind": "text", "content": text, "in_reply_to": outbound.answers, "created_at": created_at })
        }
        Content::Reaction { emoji, target } => {
            json!({ "id": outbound.id, "kind": "reaction", "emoji": emoji, "target": target,
                    "in_reply_to": outbound.answers, "created_at": created_at })
        }
    }
}
