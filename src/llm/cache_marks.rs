//! Where a Messages server is to keep what it has read: a mark behind the history of a conversation.
//!
//! Rig marks the tools, the system prompt and the very last block. Between two turns the last block is of
//! no use: a turn's own message holds the time and what runs, and is never sent again. So one more mark
//! stands on the last block before it, and the next turn reads everything up to there from the cache (the
//! server looks twenty blocks back from each mark, and takes four marks).

use bytes::Bytes;
use rig_core::http_client::{
    Error as HttpError, HttpClientExt, LazyBody, MultipartForm, Request, Response, StreamingResponse,
};
use rig_core::wasm_compat::WasmCompatSend;
use serde_json::{Map, Value, json};

use crate::http::transport::HttpTransport;

/// Marks that a server takes in one request.
const MARKS_MAX: usize = 4;
const MARK: &str = "cache_control";

/// A transport whose requests get that mark.
#[derive(Clone)]
pub(super) struct MarksHistory(pub(super) HttpTransport);

impl HttpClientExt for MarksHistory {
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>, HttpError>> + WasmCompatSend + 'static
    where
        T: Into<Bytes> + WasmCompatSend,
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        self.0.send(request.map(|body| marked(body.into())))
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>, HttpError>> + WasmCompatSend + 'static
    where
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        self.0.send_multipart(request)
    }

    fn send_streaming<T>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<StreamingResponse, HttpError>> + WasmCompatSend
    where
        T: Into<Bytes> + WasmCompatSend,
    {
        self.0.send_streaming(request.map(|body| marked(body.into())))
    }
}

/// The body with the mark; as it is where there is no place for one.
fn marked(body: Bytes) -> Bytes {
    let Ok(mut request) = serde_json::from_slice::<Value>(&body) else { return body };
    match mark(&mut request) {
        // What was read can be written.
        Some(()) => serde_json::to_vec(&request).map_or(body, Bytes::from),
        None => body,
    }
}

fn mark(request: &mut Value) -> Option<()> {
    if marks(request) >= MARKS_MAX {
        return None;
    }
    let messages = request.get_mut("messages")?.as_array_mut()?;
    let turn = turn(messages)?;
    let before = stable(messages, turn)?;
    before.insert(MARK.to_owned(), json!({ "type": "ephemeral" }));
    Some(())
}

fn marks(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            usize::from(fields.contains_key(MARK)) + fields.values().map(marks).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(marks).sum(),
        _ => 0,
    }
}

/// The message of the running turn: the last words of a person before the model called the first tool.
/// A history holds no calls.
fn turn(messages: &[Value]) -> Option<usize> {
    let calls = |message: &Value| blocks(message).any(|block| block["type"] == "tool_use");
    let first_call = messages.iter().position(calls).unwrap_or(messages.len());
    messages[..first_call].iter().rposition(|message| {
        message["role"] == "user" && blocks(message).any(|block| block["type"] == "text")
    })
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message["content"].as_array().into_iter().flatten()
}

/// The last block before the last one of the turn's message that can be marked and is not.
fn stable(messages: &mut [Value], turn: usize) -> Option<&mut Map<String, Value>> {
    let own = blocks(&messages[turn]).count().checked_sub(1)?;
    let earlier = messages[..=turn].iter_mut().enumerate().rev().flat_map(|(index, message)| {
        let all = message["content"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        let most = if index == turn { own } else { all.len() };
        all[..most].iter_mut().rev()
    });
    let found = earlier.filter_map(Value::as_object_mut).find(|block| can_be_marked(block))?;
    (!found.contains_key(MARK)).then_some(found)
}

/// Thoughts and empty texts are refused with a mark. Files belong to the turn: the next one has a line for them.
fn can_be_marked(block: &Map<String, Value>) -> bool {
    match block.get("type").and_then(Value::as_str) {
        Some("text") => block.get("text").and_then(Value::as_str).is_some_and(|text| !text.is_empty()),
        Some("image" | "document") | None => false,
        Some(kind) => !kind.contains("thinking"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        json!({ "type": "text", "text": text })
    }

    fn said(role: &str, content: &[Value]) -> Value {
        json!({ "role": role, "content": content })
    }

    /// The texts that are marked after it, in a request of these messages.
    fn marked_texts(messages: &[Value]) -> Vec<String> {
        let body = json!({ "messages": messages }).to_string();
        let marked: Value = serde_json::from_slice(&marked(Bytes::from(body))).unwrap_or_default();
        let all = marked["messages"].as_array().cloned().unwrap_or_default();
        let marked = all.iter().flat_map(blocks).filter(|block| block[MARK]["type"] == "ephemeral");
        marked.map(|block| block["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn the_mark_stands_behind_the_history_wherever_the_turn_is() {
        let history = [said("user", &[text("a")]), said("assistant", &[text("b")])];
        let turn = said("user", &[text("c <status>")]);
        let call = said("assistant", &[json!({ "type": "tool_use", "id": "1", "name": "x", "input": {} })]);
        let result = said("user", &[json!({ "type": "tool_result", "tool_use_id": "1" })]);
        let steered = said("user", &[text("meanwhile")]);
        let all = [history.to_vec(), vec![turn, call, result, steered]].concat();
        for end in 3..=all.len() {
            assert_eq!(marked_texts(&all[..end]), ["b"], "{end}");
        }
    }

    #[test]
    fn one_message_of_many_blocks_is_marked_before_its_last() {
        assert_eq!(marked_texts(&[said("user", &[text("a"), text("b"), text("turn")])]), ["b"]);
        let files = ["image", "document"].map(|kind| json!({ "type": kind }));
        let shown = [vec![text("a"), text("b")], files.to_vec(), vec![text("turn")]].concat();
        assert_eq!(marked_texts(&[said("user", &shown)]), ["b"]);
        let thought = json!({ "type": "thinking", "thinking": "hm" });
        let messages = [said("user", &[text("a")]), said("assistant", &[text("b"), thought, text("")])];
        assert_eq!(marked_texts(&[messages.to_vec(), vec![said("user", &[text("turn")])]].concat()), ["b"]);
    }

    #[test]
    fn where_there_is_no_place_nothing_changes() {
        let mark = || json!({ "type": "text", "text": "x", "cache_control": { "type": "ephemeral" } });
        let full = said("user", &[mark(), mark(), mark(), mark(), text("turn")]);
        let bodies = [
            json!({ "messages": [said("user", &[text("turn")])] }),
            json!({ "messages": [full] }),
            json!({ "messages": [{ "role": "user", "content": "a string" }] }),
            json!({ "messages": [] }),
            json!([1, 2]),
        ];
        for body in bodies {
            let body = Bytes::from(body.to_string());
            assert_eq!(marked(body.clone()), body);
        }
        assert_eq!(marked(Bytes::from_static(b"no json")), Bytes::from_static(b"no json"));
    }
}
