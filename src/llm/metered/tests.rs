//! What a request may come to, and which failures cost nothing.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use http::StatusCode;
use rig_core::completion::{Message, ToolDefinition};
use rig_core::http_client::Error as HttpError;
use rig_core::message::ToolName;

use super::*;
use crate::billing::Exhausted;
use crate::clock::Timestamp;
use crate::http::transport::TransportError;
use crate::id::{AgentId, ProcessKind};
use crate::secrets::Scrubber;

fn request(text: &str) -> CompletionRequest {
    // Rig makes requests in its builder only.
    let history = serde_json::to_value([Message::user(text)]).unwrap();
    serde_json::from_value(serde_json::json!({
        "model": null, "chat_history": history, "documents": [], "tools": [], "temperature": null,
        "max_tokens": null, "tool_choice": null, "additional_params": null, "output_schema": null,
    }))
    .unwrap()
}

#[derive(Default)]
struct Asked {
    wanted: Mutex<Vec<(u64, u64, Option<u64>)>>,
    output_most: Option<u64>,
    refuses: bool,
}

struct Leave(Option<u64>);

impl Permit for Leave {
    fn output_most(&self) -> Option<u64> {
        self.0
    }
    fn settle(self: Box<Self>, _outcome: Outcome) {}
}

impl Meter for Asked {
    fn authorise(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused> {
        self.wanted.lock().unwrap().push((wanted.input_most, wanted.input_least, wanted.output_most));
        if self.refuses {
            return Err(Refused { reason: "no".to_owned(), then: Exhausted::Offline });
        }
        Ok(Box::new(Leave(self.output_most)))
    }
}

fn authorised(meter: Asked, request: &mut CompletionRequest) -> (Arc<Asked>, bool) {
    let meter = Arc::new(meter);
    let payer = Payer::new(AgentId::new("main"), ProcessKind::Channel);
    let account = Account { meter: Some(meter.clone()), payer };
    let is_leave = account.authorise("p/m", request).is_ok();
    (meter, is_leave)
}

#[test]
fn the_most_of_a_request_is_no_less_than_its_bytes_in_any_script_and_the_least_far_below() {
    for text in ["hello", &"word ".repeat(4_000), &"\u{1F980}\u{5B57}".repeat(500), &"\n\"\\".repeat(100), ""]
    {
        let mut request = request(text);
        let parameters = serde_json::json!({ "type": "object" });
        request.tools.push(ToolDefinition::new(ToolName::new("tool").unwrap(), "d".repeat(300), parameters));
        let (asked, _) = authorised(Asked::default(), &mut request);
        let (most, least, output) = asked.wanted.lock().unwrap()[0];
        assert!(most >= u64::try_from(text.len()).unwrap() + 300 + OWN_TOKENS_MOST, "{most} of {text:?}");
        let characters = u64::try_from(text.chars().count()).unwrap() + 400;
        assert!(least <= characters / 15 + 1, "{least} of {text:?}");
        assert_eq!(output, None);
    }
}

#[test]
fn the_request_carries_the_limit_that_was_reckoned_with() {
    let mut plain = request("a");
    authorised(Asked::default(), &mut plain);
    assert_eq!(plain.max_tokens, None);
    authorised(Asked { output_most: Some(77), ..Asked::default() }, &mut plain);
    assert_eq!(plain.max_tokens, Some(77));
    let (asked, _) = authorised(Asked { output_most: Some(77), ..Asked::default() }, &mut plain);
    assert_eq!(asked.wanted.lock().unwrap()[0].2, Some(77), "what it carries is what is asked for");
    assert!(!authorised(Asked { refuses: true, ..Asked::default() }, &mut plain).1);
}

#[test]
fn a_picture_may_unfold_to_many_tokens() {
    let mut request = request("a");
    let plain = input_most(&request);
    let image = UserContent::image_base64("aGk=", None, None);
    request.chat_history.push(Message::User { content: vec![image] });
    assert!(input_most(&request) >= plain + IMAGE_TOKENS_MOST);
}

#[test]
fn only_what_cannot_have_been_billed_is_free() {
    let scrubber = Scrubber::new(std::iter::empty::<&str>());
    let reporter = Reporter { model: "p/m", scrubber: &scrubber, now: Timestamp(0) };
    let broken = |error: ProviderError, begun| Broken::Failed { error: Box::new(error), begun };
    let status = |status: u16, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        ProviderError::from_http_response(status, body)
    };
    for (code, free) in [
        (400, true),
        (401, true),
        (404, true),
        (408, false),
        (413, true),
        (429, true),
        (500, true),
        (502, false),
        (503, true),
        (504, false),
        (529, true),
        (302, false),
        (200, false),
    ] {
        assert_eq!(is_free(&broken(status(code, "{}"), false), &reporter), free, "{code}");
        assert!(!is_free(&broken(status(code, "{}"), true), &reporter), "{code} within an answer");
    }
    let filtered = r#"{"error":{"code":"content_filter"}}"#;
    assert!(!is_free(&broken(status(400, filtered), false), &reporter), "the filter has read it");
    let transport = |error: TransportError| ProviderError::from(HttpError::instance(error));
    let text = || "x".to_owned();
    for (error, free) in [
        (TransportError::Unconnected(text()), true),
        (TransportError::Handshake(text()), true),
        (TransportError::BadAddress(text()), true),
        (TransportError::TimedOut(ureq::Timeout::Connect.to_string()), true),
        (TransportError::TimedOut(ureq::Timeout::Resolve.to_string()), true),
        (TransportError::TimedOut(ureq::Timeout::RecvBody.to_string()), false),
        (TransportError::Network(text()), false),
        (TransportError::Tls(text()), false),
        (TransportError::Protocol(text()), false),
        (TransportError::Stopped, false),
    ] {
        let shown = format!("{error:?}");
        assert_eq!(is_free(&broken(transport(error), false), &reporter), free, "{shown}");
    }
    assert!(!is_free(&Broken::Stopped, &reporter));
    assert!(!is_free(&broken(ProviderError::Truncated, false), &reporter));
}
