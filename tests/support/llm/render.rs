//! Answers of the double in the wire formats, whole and as event streams.

use serde_json::{Value, json};

use super::say::{Answer, Body, Say, WireFormat, array, event_text};
use super::{gemini, responses};

/// The body in pieces, and whether they are an event stream.
pub(super) fn render(say: &Say, wire: WireFormat, streamed: bool) -> (Vec<String>, bool) {
    match &say.body {
        Body::Answer(answer) if streamed => (events(answer, wire), true),
        Body::Answer(answer) => (vec![whole(answer, wire).to_string()], false),
        Body::Error(kind, message) => (vec![error(say.status, kind, message, wire).to_string()], false),
        Body::Raw(raw) => (vec![raw.clone()], false),
        Body::Events(events) => (events.clone(), true),
        Body::PerWire(all) if streamed => {
            (array(&all[wire.name()]["events"]).iter().map(event_text).collect(), true)
        }
        Body::PerWire(all) => (vec![all[wire.name()]["body"].to_string()], false),
    }
}

fn events(answer: &Answer, wire: WireFormat) -> Vec<String> {
    match wire {
        WireFormat::OpenAi => openai_events(answer),
        WireFormat::Anthropic => anthropic_events(answer),
        WireFormat::Responses => responses::events(answer),
        WireFormat::Gemini => gemini::events(answer),
    }
}

fn whole(answer: &Answer, wire: WireFormat) -> Value {
    match wire {
        WireFormat::OpenAi => openai_body(answer),
        WireFormat::Anthropic => anthropic_body(answer),
        WireFormat::Responses => responses::body(answer),
        WireFormat::Gemini => gemini::body(answer),
    }
}

fn error(status: u16, kind: &str, message: &str, wire: WireFormat) -> Value {
    match wire {
        WireFormat::OpenAi | WireFormat::Responses => responses::error(kind, message),
        WireFormat::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
        WireFormat::Gemini => gemini::error(status, kind, message),
    }
}

/// Tokens of every answer, so that tests of accounting know them.
pub const INPUT_TOKENS: u64 = 10;
pub const CACHED_TOKENS: u64 = 7;
pub const OUTPUT_TOKENS: u64 = 4;

fn finish_word(answer: &Answer, wire: WireFormat) -> &str {
    let fitting = if answer.calls.is_empty() { "stop" } else { "tool_calls" };
    let word = answer.finish.as_deref().unwrap_or(fitting);
    match (wire, word) {
        (WireFormat::Anthropic, "stop") => "end_turn",
        (WireFormat::Anthropic, "tool_calls") => "tool_use",
        (WireFormat::Anthropic, "length") => "max_tokens",
        (WireFormat::Anthropic, "content_filter") => "refusal",
        (_, word) => word,
    }
}

fn openai_usage() -> Value {
    json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS, "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS}})
}

fn openai_body(answer: &Answer) -> Value {
    let content = if answer.text.is_empty() { Value::Null } else { json!(answer.text) };
    let mut message = json!({"role": "assistant", "content": content});
    if !answer.calls.is_empty() {
        let calls = answer.calls.iter().map(|call| {
            json!({"id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments}})
        });
        message["tool_calls"] = calls.collect();
    }
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "double",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_word(answer, WireFormat::OpenAi)}],
        "usage": openai_usage()})
}

/// Words with their blanks: what a model sends at a time.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ')
}

/// Most pieces of one text of arguments; each is an event.
const PIECES_MAX: usize = 20_000;

/// Argument text in pieces that end in the middle of things.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let size = text.len().div_ceil(PIECES_MAX).max(6);
    text.chars().collect::<Vec<_>>().chunks(size).map(|piece| piece.iter().collect()).collect()
}

fn openai_events(answer: &Answer) -> Vec<String> {
    let chunk = |delta: Value, finish: Value| {
        event_text(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
            "model": "double", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(words(&answer.text).map(|word| chunk(json!({"content": word}), Value::Null)));
    for (index, call) in answer.calls.iter().enumerate() {
        let function = json!({"name": call.name, "arguments": ""});
        let start = json!({"index": index, "id": call.id, "type": "function", "function": function});
        events.push(chunk(json!({"tool_calls": [start]}), Value::Null));
        for piece in pieces(&call.arguments) {
            let more = json!({"index": index, "function": {"arguments": piece}});
            events.push(chunk(json!({"tool_calls": [more]}), Value::Null));
        }
    }
    events.push(chunk(json!({}), json!(finish_word(answer, WireFormat::OpenAi))));
    events.push(event_text(&json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
        "model": "double", "choices": [], "usage": openai_usage()})));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn anthropic_usage() -> Value {
    json!({"input_tokens": INPUT_TOKENS - CACHED_TOKENS, "cache_read_input_tokens": CACHED_TOKENS,
        "cache_creation_input_tokens": 0, "output_tokens": OUTPUT_TOKENS})
}

fn anthropic_body(answer: &Answer) -> Value {
    let mut content: Vec<Value> = Vec::new();
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    for call in &answer.calls {
        let input = serde_json::from_str(&call.arguments).unwrap_or(json!(call.arguments));
        content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
    }
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "double", "content": content,
        "stop_reason": finish_word(answer, WireFormat::Anthropic), "stop_sequence": null,
        "usage": anthropic_usage()})
}

fn anthropic_events(answer: &Answer) -> Vec<String> {
    let mut message = anthropic_body(&Answer::default());
    message["stop_reason"] = Value::Null;
    let mut events = vec![event_text(&json!({"type": "message_start", "message": message}))];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(event_text(
            &json!({"type": "content_block_start", "index": index, "content_block": start}),
        ));
        for delta in deltas {
            events.push(event_text(&json!({"type": "content_block_delta", "index": index, "delta": delta})));
        }
        events.push(event_text(&json!({"type": "content_block_stop", "index": index})));
        index += 1;
    };
    if !answer.text.is_empty() {
        let deltas = words(&answer.text).map(|word| json!({"type": "text_delta", "text": word}));
        block(json!({"type": "text", "text": ""}), deltas.collect());
    }
    for call in &answer.calls {
        let deltas = pieces(&call.arguments).into_iter();
        let deltas = deltas.map(|piece| json!({"type": "input_json_delta", "partial_json": piece}));
        block(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), deltas.collect());
    }
    events.push(event_text(&json!({"type": "message_delta", "usage": {"output_tokens": OUTPUT_TOKENS},
        "delta": {"stop_reason": finish_word(answer, WireFormat::Anthropic), "stop_sequence": null}})));
    events.push(event_text(&json!({"type": "message_stop"})));
    events
}
