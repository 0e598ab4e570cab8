//! The double's answers in OpenAI's Responses format, whole and as event streams.

use serde_json::{Value, json};

use super::render::{CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS, pieces, words};
use super::say::{Answer, event_text};

pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "code": kind, "param": null}})
}

fn usage() -> Value {
    json!({"input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS})
}

fn message(text: &str) -> Value {
    let content = match text {
        "" => json!([]),
        text => json!([{"type": "output_text", "text": text, "annotations": []}]),
    };
    json!({"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content})
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"type": "function_call", "id": format!("fc_{id}"), "call_id": id, "name": name,
        "arguments": arguments, "status": "completed"})
}

/// The end of the answer: its status, and why it is none that is complete.
fn status(answer: &Answer) -> (&str, Value) {
    match answer.finish.as_deref() {
        None | Some("stop" | "tool_calls") => ("completed", Value::Null),
        Some("length") => ("incomplete", json!({"reason": "max_output_tokens"})),
        Some("content_filter") => ("incomplete", json!({"reason": "content_filter"})),
        Some(other) => ("incomplete", json!({"reason": other})),
    }
}

fn output(answer: &Answer) -> Vec<Value> {
    let text = (!answer.text.is_empty()).then(|| message(&answer.text));
    let calls = answer.calls.iter().map(|made| call(&made.id, &made.name, &made.arguments));
    text.into_iter().chain(calls).collect()
}

pub(super) fn body(answer: &Answer) -> Value {
    let (status, details) = status(answer);
    json!({"id": "resp_1", "object": "response", "created_at": 1, "model": "double", "status": status,
        "incomplete_details": details, "output": output(answer), "usage": usage()})
}

pub(super) fn events(answer: &Answer) -> Vec<String> {
    let mut number = 0;
    let mut events = Vec::new();
    let mut push = |mut event: Value| {
        event["sequence_number"] = json!(number);
        number += 1;
        events.push(event_text(&event));
    };
    let begun = json!({"id": "resp_1", "object": "response", "created_at": 1, "model": "double",
        "status": "in_progress", "output": []});
    push(json!({"type": "response.created", "response": begun}));
    for (index, item) in output(answer).into_iter().enumerate() {
        let id = item["id"].clone();
        let at = |kind: &str| json!({"type": kind, "output_index": index, "item_id": id, "content_index": 0});
        let with = |mut event: Value, field: &str, value: Value| {
            event[field] = value;
            event
        };
        let is_call = item["type"] == "function_call";
        let mut empty = item.clone();
        empty["status"] = json!("in_progress");
        empty[if is_call { "arguments" } else { "content" }] = if is_call { json!("") } else { json!([]) };
        push(json!({"type": "response.output_item.added", "output_index": index, "item": empty}));
        if is_call {
            let arguments = item["arguments"].as_str().unwrap();
            for piece in pieces(arguments) {
                push(with(at("response.function_call_arguments.delta"), "delta", json!(piece)));
            }
            push(with(at("response.function_call_arguments.done"), "arguments", json!(arguments)));
        } else {
            for word in words(&answer.text) {
                push(with(at("response.output_text.delta"), "delta", json!(word)));
            }
            push(with(at("response.output_text.done"), "text", json!(answer.text)));
        }
        push(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
    let end = if status(answer).0 == "completed" { "response.completed" } else { "response.incomplete" };
    push(json!({"type": end, "response": body(answer)}));
    events
}
