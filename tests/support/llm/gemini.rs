//! The double's answers in Gemini's GenerateContent format, whole and as event streams.

use serde_json::{Value, json};

use super::render::{CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, words};
use super::say::{Answer, ToolCall, event_text};

/// Google's name of what a script calls by another maker's.
fn status_name(kind: &str) -> &str {
    match kind {
        "rate_limit_error" | "insufficient_quota" => "RESOURCE_EXHAUSTED",
        "authentication_error" => "UNAUTHENTICATED",
        "permission_error" => "PERMISSION_DENIED",
        "invalid_request_error" => "INVALID_ARGUMENT",
        "not_found_error" => "NOT_FOUND",
        "overloaded_error" => "UNAVAILABLE",
        "api_error" => "INTERNAL",
        other => other,
    }
}

pub(super) fn error(status: u16, kind: &str, message: &str) -> Value {
    json!({"error": {"code": status, "message": message, "status": status_name(kind)}})
}

fn usage() -> Value {
    json!({"promptTokenCount": INPUT_TOKENS, "cachedContentTokenCount": CACHED_TOKENS,
        "candidatesTokenCount": OUTPUT_TOKENS, "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS})
}

fn finish(answer: &Answer) -> String {
    match answer.finish.as_deref() {
        None | Some("stop" | "tool_calls") => "STOP".to_owned(),
        Some("length") => "MAX_TOKENS".to_owned(),
        Some("content_filter") => "SAFETY".to_owned(),
        Some(other) => other.to_uppercase(),
    }
}

fn call(call: &ToolCall) -> Value {
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or(json!(call.arguments));
    json!({"functionCall": {"id": call.id, "name": call.name, "args": arguments}})
}

fn chunk(parts: Vec<Value>, finish: Option<String>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({"candidates": [candidate], "usageMetadata": usage(), "modelVersion": "double", "responseId": "r_1"})
}

pub(super) fn body(answer: &Answer) -> Value {
    let text = (!answer.text.is_empty()).then(|| json!({"text": answer.text}));
    chunk(text.into_iter().chain(answer.calls.iter().map(call)).collect(), Some(finish(answer)))
}

/// Arguments never come in pieces here: a call is one part.
pub(super) fn events(answer: &Answer) -> Vec<String> {
    let texts = words(&answer.text).map(|word| json!({"text": word}));
    let parts = texts.chain(answer.calls.iter().map(call));
    let mut events: Vec<String> = parts.map(|part| event_text(&chunk(vec![part], None))).collect();
    events.push(event_text(&chunk(vec![json!({"text": ""})], Some(finish(answer)))));
    events
}
