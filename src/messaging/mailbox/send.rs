//! A message comes in.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use super::{COMMIT_WAIT_MAX, Mailbox, check_id, failure, invalid, late, platform_id};
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::http::server::{Outcome, Request, Response, promise};
use crate::id::AgentId;
use crate::message::attachment::{BYTES_MAX, FILES_MAX};
use crate::message::{Accepted, Inbound, IntakeError, Lane, NewFile};

/// Longest message; more is a file, not a message.
const MAX_CONTENT_BYTES: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    conversation_id: String,
    sender_id: String,
    content: String,
    agent_id: Option<String>,
    message_id: Option<String>,
    sender_name: Option<String>,
    #[serde(borrow, default)]
    attachments: Vec<File<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    name: String,
    /// What the sender calls it; what it is stands in its bytes.
    #[serde(rename = "type")]
    media_type: String,
    /// In base64.
    #[serde(borrow)]
    data: Cow<'a, str>,
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
        let read = read(request.body).and_then(|mut body| {
            let files = files(&body.attachments)?;
            body.attachments.clear();
            Ok((body, files))
        });
        let (body, files) = match read {
            Ok(read) => read,
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
        if !files.is_empty() && inbound.lane() == Lane::Commands {
            return Outcome::Respond(invalid("A command takes no attachments."));
        }
        let (promise, later) = promise(COMMIT_WAIT_MAX, late);
        let taken = Box::new(move |taken| promise.keep(receipt(taken, &message_id)));
        self.intake.begin_with(inbound, files, taken);
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

fn read(body: &[u8]) -> Result<Body<'_>, Response> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(invalid("The body must be a JSON object."));
    }
    let body: Body<'_> = serde_json::from_slice(body)
        .map_err(|error| invalid(format_args!("The body is not as expected: {error}.")))?;
    check_id("conversation_id", &body.conversation_id)?;
    check_id("sender_id", &body.sender_id)?;
    let optional =
        [("agent_id", &body.agent_id), ("message_id", &body.message_id), ("sender_name", &body.sender_name)];
    for (field, text) in optional {
        text.as_deref().map_or(Ok(()), |text| check_id(field, text))?;
    }
    if body.content.trim().is_empty() && body.attachments.is_empty() {
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

/// The files of a message, within what one message may bring.
fn files(attachments: &[File<'_>]) -> Result<Vec<NewFile>, Response> {
    if attachments.len() > FILES_MAX {
        let count = attachments.len();
        return Err(too_large(format_args!("A message may have {FILES_MAX} attachments, not {count}.")));
    }
    // As many bytes come of three quarters of their characters: nothing is decoded that would be refused.
    let characters = attachments.iter().map(|file| file.data.len()).sum::<usize>();
    if characters / 4 * 3 > BYTES_MAX + 3 * FILES_MAX {
        return Err(too_many_bytes());
    }
    let mut files = Vec::with_capacity(attachments.len());
    for (number, file) in (1..).zip(attachments) {
        check_id(&format!("name of attachment {number}"), &file.name)?;
        check_id(&format!("type of attachment {number}"), &file.media_type)?;
        let Ok(bytes) = STANDARD.decode(file.data.as_bytes()) else {
            return Err(invalid(format_args!("The field data of attachment {number} is not base64.")));
        };
        files.push(NewFile { name: file.name.clone(), media_type: file.media_type.clone(), bytes });
    }
    if files.iter().map(|file| file.bytes.len()).sum::<usize>() > BYTES_MAX {
        return Err(too_many_bytes());
    }
    Ok(files)
}

fn too_many_bytes() -> Response {
    const MIB: usize = BYTES_MAX >> 20;
    too_large(format_args!("The attachments of a message may have {MIB} MiB together."))
}

fn too_large(what: impl std::fmt::Display) -> Response {
    Response::error(413, Kind::Invalid, what)
}

fn new_message_id(now: Timestamp) -> String {
    let milliseconds = u64::try_from(now.0).unwrap_or(0);
    let nanoseconds = u32::try_from(milliseconds % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, milliseconds / 1000, nanoseconds)).to_string()
}
