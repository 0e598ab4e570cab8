//! `GET /api/events`: what goes on in the processes, as server-sent events, for as long as somebody listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Api, method_not_allowed};
use crate::error::Kind;
use crate::http::server::{Outcome, Request, Response, Ring, Source, Stream};
use crate::id::{AgentId, ConversationId};
use crate::onlookers::{Deed, Interest, Onlooker, Onlookers, Seen, Sight};

/// Between two signs of life while nothing goes on.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// A comment, which clients leave out.
const SIGN_OF_LIFE: &[u8] = b":\n\n";
/// Bytes of words in one piece; less than what the server writes for a slow client without a reservation.
const PIECE_BYTES: usize = 8 << 10;
/// What who is one too many is told to wait.
const RETRY_AFTER_SECONDS: &str = "5";

/// Who looks on over HTTP.
#[derive(Clone, Default)]
pub struct Gallery {
    pub onlookers: Arc<Onlookers>,
    /// Number of the last stream.
    newest: Arc<AtomicU64>,
}

impl Gallery {
    pub fn new(onlookers: Arc<Onlookers>) -> Self {
        Self { onlookers, newest: Arc::default() }
    }
}

impl Api {
    pub(super) fn events(&self, request: &Request<'_>) -> Outcome {
        if request.method != "GET" {
            return Outcome::Respond(method_not_allowed());
        }
        let interest = match self.interest(request) {
            Ok(interest) => interest,
            Err(refusal) => return Outcome::Respond(refusal),
        };
        let Some(onlooker) = self.gallery.onlookers.join(interest) else {
            let message = "as many as may look on at once do already";
            let refusal = Response::error(503, Kind::Full, message);
            return Outcome::Respond(refusal.with_header("Retry-After", RETRY_AFTER_SECONDS));
        };
        let number = self.gallery.newest.fetch_add(1, Ordering::Relaxed);
        let source = Watching { onlooker, is_new: true };
        Outcome::Stream(Stream::new("text/event-stream", format!("events {number}"), HEARTBEAT, source))
    }

    fn interest(&self, request: &Request<'_>) -> Result<Interest, Response> {
        let refused = |reason: &str| Response::error(400, Kind::Invalid, reason);
        let mut interest = Interest::default();
        for (name, value) in request.parameters().map_err(refused)? {
            match name.as_ref() {
                "agent" => interest.agent = Some(AgentId::new(&value)),
                "conversation" => interest.conversation = Some(ConversationId::new(&value)),
                _ => return Err(refused("agent and conversation can be given")),
            }
        }
        match &interest.agent {
            // Who waits for an agent that does not exist waits for ever.
            Some(agent) if !self.boards.contains_key(agent) => {
                Err(Response::error(404, Kind::NotFound, format_args!("there is no agent named {agent}")))
            }
            _ => Ok(interest),
        }
    }
}

struct Watching {
    onlooker: Onlooker,
    /// The client is to know that it is heard.
    is_new: bool,
}

impl Source for Watching {
    fn begin(&mut self, ring: Ring) {
        self.onlooker.ring_with(ring);
    }

    fn next(&mut self, quiet: bool) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        for seen in self.onlooker.look(PIECE_BYTES) {
            piece.extend_from_slice(b"data: ");
            piece.extend_from_slice(line(&seen).to_string().as_bytes());
            piece.extend_from_slice(b"\n\n");
        }
        let is_new = std::mem::take(&mut self.is_new);
        if piece.is_empty() && (quiet || is_new) {
            piece.extend_from_slice(SIGN_OF_LIFE);
        }
        Some(piece)
    }
}

fn line(seen: &Seen) -> Value {
    match seen {
        Seen::Lost(count) => json!({ "what": "lost", "count": count }),
        Seen::Notice(notice) => json!({ "what": notice.about, "text": notice.text }),
        Seen::Sight(sight) => of_sight(sight),
    }
}

fn of_sight(Sight { who, what }: &Sight) -> Value {
    let mut line = match what {
        Deed::Started => json!({ "what": "started" }),
        Deed::Answering => json!({ "what": "answering" }),
        Deed::Text(text) => json!({ "what": "text", "text": text }),
        Deed::Reasoning(text) => json!({ "what": "reasoning", "text": text }),
        Deed::Call { call, tool } => json!({ "what": "call", "call": call, "tool": &**tool }),
        Deed::Arguments { call, tool, json } => {
            json!({ "what": "arguments", "call": call, "tool": &**tool, "text": json })
        }
        Deed::ToolStarted { tool } => json!({ "what": "tool_started", "tool": &**tool }),
        Deed::ToolFinished { tool, failed } => {
            json!({ "what": "tool_finished", "tool": &**tool, "failed": failed })
        }
        Deed::Ended(how) => json!({ "what": "ended", "how": how }),
    };
    line["agent"] = json!(who.agent.as_str());
    line["conversation"] = json!(who.conversation.as_str());
    line["process"] = json!(who.process.kind);
    line["number"] = json!(who.process.number);
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::id::{ProcessId, ProcessKind};
    use crate::onlookers::Who;

    #[test]
    fn each_thing_seen_is_one_line_and_silence_is_a_comment() {
        let onlookers = Arc::new(Onlookers::default());
        let onlooker = onlookers.join(Interest::default()).unwrap();
        let mut watching = Watching { onlooker, is_new: true };
        let mut next = |quiet| String::from_utf8(watching.next(quiet).unwrap()).unwrap();
        assert_eq!([next(false), next(false), next(true)], [":\n\n", "", ":\n\n"]);
        let who = Arc::new(Who {
            agent: AgentId::new("main"),
            conversation: ConversationId::new("portal:c"),
            process: ProcessId::new(ProcessKind::Branch, 4),
        });
        onlookers.tell(&who, Deed::Text("a\nb".to_owned()));
        onlookers.tell(&who, Deed::Ended("done"));
        let lines = next(true);
        let lines: Vec<&str> = lines.split_terminator("\n\n").collect();
        let [first, second] = lines[..] else { panic!("{lines:?}") };
        let first: Value = serde_json::from_str(first.strip_prefix("data: ").unwrap()).unwrap();
        let expected = json!({
            "agent": "main", "conversation": "portal:c", "process": "branch", "number": 4,
            "what": "text", "text": "a\nb",
        });
        assert_eq!(first, expected);
        assert!(!second.contains('\n') && second.contains("\"ended\""), "{second}");
    }
}
