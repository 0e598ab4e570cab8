//! A message comes in.

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use super::{COMMIT_WAIT_MAX, Mailbox, check_id, failure, invalid, late, platform_id};
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::http::server::{Outcome, Request, Response, promise};
use crate::id::AgentId;
use crate::message::{Accepted, Inbound, IntakeError};

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
        let body = match read(request.body) {
            Ok(body) => body,
            Err(refusal) => return Outcome::Respond(refusal),
        };
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
        let (promise, later) = promise(COMMIT_WAIT_MAX, late);
        self.intake.begin(inbound, Box::new(move |taken| promise.keep(receipt(taken, &message_id))));
        Outcome::Later(later)
    }
}

fn receipt(taken: Result<Accepted, IntakeError>, message_id: &str) -> Response {
    let duplicate = match taken {
        Ok(Accepted::New(_)) => false,
        Ok(Accepted::Duplicate) => true,
        Ok(Accepted::Refused(reason)) => {
            return Response::error(403, Kind::Invalid, format_args!("Not accepted: {reason}."));
        }
        Err(error) => return failure(&error),
    };
    Response::json(202, &Receipt { accepted: true, message_id, duplicate })
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
