//! A conversation over HTTP: send a message, poll for the answers. The webhook and the local API
//! share it.
//!
//! `send` answers after the message is committed. A `message_id` of the client makes sending it
//! twice harmless; it counts within its conversation. `attachments` are at most
//! [`crate::message::attachment::FILES_MAX`] files as `{"name", "type", "data"}`, `data` in base64.
//!
//! `poll` comes in two kinds; a conversation should stay with one of them.
//! - Without `after`, an answer is handed out once: it is recorded as sent as soon as the bytes of
//!   the response went to the network. A client that dies before it reads them loses them, and a
//!   crash of the daemon between the two may hand them out a second time.
//! - With `after=ID`, answers up to ID are acknowledged and those above it are returned, again and
//!   again until a later `after` acknowledges them. Begin with `after=0` and go on with the highest
//!   id that was processed: then every answer is processed exactly once.
//!
//! With `draft=NUMBER` and `from=BYTES` a poll also returns what is being written at the moment and was
//! not seen yet, as `draft: {number, from, content}` beside an empty list. Begin with zeros.

mod poll;
mod send;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::error::{Fault, Kind, log_line};
use crate::http::server::{Leases, Response};
use crate::id::{ConversationId, InstanceId, OutboxId};
use crate::message::{Intake, Outbox};
use crate::messaging::drafts::Drafts;

/// Longest id or name of a client; long enough for any hash or address.
const MAX_ID_BYTES: usize = 200;
/// Longest wait for the disk; clients give up soon after.
const COMMIT_WAIT_MAX: Duration = Duration::from_secs(30);
/// What a client is told to wait after a failure that may pass.
const RETRY_AFTER_SECONDS: &str = "2";

/// The mailboxes of one instance; every conversation in it is called `<instance>:<its id>`.
pub struct Mailbox {
    intake: Arc<dyn Intake>,
    outbox: Arc<dyn Outbox>,
    clock: SharedClock,
    instance: InstanceId,
    /// Conversations with a plain poll under way: its rows are still pending, and must not go into
    /// a second response. What is left are rows that were sent but could not be recorded.
    polls: Leases<ConversationId, OutboxId>,
    /// What is being written in these conversations.
    drafts: Arc<Drafts>,
}

impl Mailbox {
    pub fn new(
        intake: Arc<dyn Intake>,
        outbox: Arc<dyn Outbox>,
        drafts: Arc<Drafts>,
        clock: SharedClock,
        instance: InstanceId,
    ) -> Self {
        Self { intake, outbox, clock, instance, polls: Leases::default(), drafts }
    }

    pub fn health(&self) -> Response {
        Response::json(200, &serde_json::json!({ "status": "ok" }))
    }

    /// The full name of a conversation; it is also the key to wake its polls with.
    pub fn conversation(&self, id: &str) -> ConversationId {
        ConversationId::new(format!("{}:{id}", self.instance))
    }
}

/// The platform's id of a message: clients number their messages per conversation, the inbox per
/// instance.
fn platform_id(conversation: &str, message: &str) -> String {
    format!("{conversation}/{message}")
}

/// The client's own id again.
fn message_id<'a>(conversation: &str, platform_id: &'a str) -> &'a str {
    platform_id.strip_prefix(conversation).and_then(|rest| rest.strip_prefix('/')).unwrap_or(platform_id)
}

/// An id or name of a client: short, and one printable line.
fn check_id(field: &str, text: &str) -> Result<(), Response> {
    // The two separators are line breaks for many readers, though not control characters.
    let is_broken = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if text.trim().is_empty() {
        Err(invalid(format!("The field {field} is missing or empty.")))
    } else if text.len() > MAX_ID_BYTES {
        Err(invalid(format!("The field {field} is longer than {MAX_ID_BYTES} bytes.")))
    } else if text.contains(is_broken) {
        Err(invalid(format!(
            "The field {field} holds a line break or another character that does not print."
        )))
    } else {
        Ok(())
    }
}

fn invalid(message: impl std::fmt::Display) -> Response {
    Response::error(400, Kind::Invalid, message)
}

/// The disk did not answer within [`COMMIT_WAIT_MAX`].
fn late() -> Response {
    let message = "The disk is slow, and whether this is stored is not known yet. Try again in a moment, a \
                   message with the same message_id.";
    Response::error(503, Kind::Transient, message).with_header("Retry-After", RETRY_AFTER_SECONDS)
}

/// What a failure behind us looks like from outside.
fn failure(fault: &dyn Fault) -> Response {
    let kind = fault.kind();
    match kind {
        Kind::NotFound => Response::error(404, kind, format_args!("Not accepted: {fault}.")),
        Kind::Invalid => Response::error(400, kind, format_args!("Not accepted: {fault}.")),
        _ if kind.is_retryable() || kind == Kind::Cancelled => {
            log::debug!("a client was asked to try again: {}", log_line(fault));
            Response::error(503, kind, format_args!("Try again in a moment: {fault}."))
                .with_header("Retry-After", RETRY_AFTER_SECONDS)
        }
        _ => {
            log::error!("{}", log_line(fault));
            Response::error(500, kind, "The daemon could not do this because of an error of its own.")
        }
    }
}

#[cfg(test)]
mod tests;
