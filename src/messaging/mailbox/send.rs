//! A message comes in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use super::{Mailbox, RETRY_AFTER_SECONDS, check_id, commits, failure, invalid, platform_id};
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::http::server::{Outcome, Request, Response};
use crate::id::AgentId;
use crate::message::{Accepted, Inbound};

/// Longest wait for a turn; clients give up soon after.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest message; more is a file, not a message.
const MAX_CONTENT_BYTES: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    conversation_id: String,
    sender_id: String,
    content: String,
    agent_id: Option<String>,
    message_id: Option<String>,
    sender_name: Option<String>,
}

#[derive(Serialize)]
struct Receipt<'a> {
    accepted: bool,
    message_id: &'a str,
    duplicate: bool,
}

impl Mailbox {
    /// Takes the message in the request's body; the answer comes after the commit.
    pub fn send(&self, request: &Request<'_>) -> Outcome {
        self.with_turn(request, || self.try_send(request.body).unwrap_or_else(|refusal| refusal))
    }

    /// Answers with what `commit` says, which waits for the disk. While as many wait for theirs as may,
    /// this one waits for its turn without a thread.
    pub fn with_turn(&self, request: &Request<'_>, commit: impl FnOnce() -> Response) -> Outcome {
        let Some(turn) = self.commits.begin() else {
            if request.expired {
                let busy = Response::error(503, Kind::Transient, "The disk is slow; try again in a moment.");
                return Outcome::Respond(busy.with_header("Retry-After", RETRY_AFTER_SECONDS));
            }
            return Outcome::Park { key: commits::KEY.to_owned(), wait: TURN_WAIT_MAX };
        };
        let response = commit();
        drop(turn);
        Outcome::Respond(response.wake_after(commits::KEY))
    }

    fn try_send(&self, body: &[u8]) -> Result<Response, Response> {
        let body = read(body)?;
        let now = self.clock.now();
        let message_id = body.message_id.unwrap_or_else(|| new_message_id(now));
        let inbound = Inbound {
            instance: self.instance.clone(),
            platform_id: platform_id(&body.conversation_id, &message_id),
            conversation: self.conversation(&body.conversation_id),
            agent: body.agent_id.map(AgentId::new),
            sender_name: body.sender_name.unwrap_or_else(|| body.sender_id.clone()),
            sender_id: body.sender_id,
            content: body.content,
            sent_at: now,
            direct: true,
            addressed: true,
            place: format!("{} / {}", self.instance, body.conversation_id),
        };
        let duplicate = match self.intake.accept(inbound).map_err(|error| failure(&error))? {
            Accepted::New(_) => false,
            Accepted::Duplicate => true,
            Accepted::Refused(reason) => {
                return Err(Response::error(403, Kind::Invalid, format_args!("Not accepted: {reason}.")));
            }
        };
        Ok(Response::json(202, &Receipt { accepted: true, message_id: &message_id, duplicate }))
    }
}

fn read(body: &[u8]) -> Result<Body, Response> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("The body must be a JSON object."));
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| invalid(format_args!("The body is not as expected: {error}.")))?;
    check_id("conversation_id", &body.conversation_id)?;
    check_id("sender_id", &body.sender_id)?;
    let optional =
        [("agent_id", &body.agent_id), ("message_id", &body.message_id), ("sender_name", &body.sender_name)];
    for (field, text) in optional {
        text.as_deref().map_or(Ok(()), |text| check_id(field, text))?;
    }
    if body.content.trim().is_empty() {
        return Err(invalid("The field content is empty."));
    }
    if body.content.len() > MAX_CONTENT_BYTES {
        return Err(invalid(format_args!("The field content is longer than {MAX_CONTENT_BYTES} bytes.")));
    }
    if body.content.contains('\0') {
        return Err(invalid("The field content holds a zero character."));
    }
    Ok(body)
}

fn new_message_id(now: Timestamp) -> String {
    let milliseconds = u64::try_from(now.0).unwrap_or(0);
    let nanoseconds = u32::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, milliseconds / 1000, nanoseconds)).to_string()
}
