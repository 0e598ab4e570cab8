//! The hash of what a run came to. Two runs with the same hash said the same, did the same and have the
//! same messages behind them.

use std::collections::BTreeMap;

use rig_core::completion::Message;
use ring::digest::{Context, SHA256, digest};
use serde_json::{Value, json};

use crate::effect::Effect;

/// Bytes of a hash that only tells whether something is still the same.
const SHORT_BYTES: usize = 8;

/// SHA-256 over the messages behind the run, the effects of its tools and `end`, which is what the kind
/// of process makes of them; as JSON without blanks and with sorted keys.
pub(super) fn state(history: &[Message], effects: &[Effect], end: &Value) -> String {
    let whole = json!({ "messages": history, "effects": effects, "end": end });
    hex(digest(&SHA256, sorted(whole).to_string().as_bytes()).as_ref())
}

/// A short hash of what a model is to read.
pub(super) fn of_messages<'a>(messages: impl IntoIterator<Item = &'a Message>) -> String {
    let mut context = Context::new(&SHA256);
    for message in messages {
        // A message is plain data; what cannot be written could not have been stored either.
        context.update(&serde_json::to_vec(message).unwrap_or_default());
        context.update(b"\n");
    }
    hex(&context.finish().as_ref()[..SHORT_BYTES])
}

pub(super) fn of_text(text: &str) -> String {
    hex(&digest(&SHA256, text.as_bytes()).as_ref()[..SHORT_BYTES])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_does_not_matter_and_everything_else_does() {
        let said = [Message::user("hello"), Message::assistant("good day")];
        let reply = |content: &str| Effect::Reply { content: content.to_owned() };
        let hash = state(&said, &[reply("yes")], &json!({ "a": 1, "b": [{ "c": 2, "d": 3 }] }));
        assert_eq!(hash.len(), 64);
        let same = json!({ "b": [{ "d": 3, "c": 2 }], "a": 1 });
        assert_eq!(hash, state(&said, &[reply("yes")], &same));
        assert_ne!(hash, state(&said[..1], &[reply("yes")], &same));
        assert_ne!(hash, state(&said, &[reply("no")], &same));
        assert_ne!(hash, state(&said, &[reply("yes")], &json!({ "b": [], "a": 1 })));
        assert_ne!(of_messages(&said), of_messages(&said[..1]));
        assert_eq!(of_text("x").len(), 2 * SHORT_BYTES);
    }
}
