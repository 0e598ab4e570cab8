//! What the double does to a good answer that nobody ordered: packed, slow, doubled, with strangers in
//! between, or with counts that cannot be.

use std::io::Write;
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::say::{Odd, Say};

/// Pieces of a header that comes slowly.
const HEAD_PIECES: usize = 4;

/// The pieces of the body as `say` wants them.
pub(super) fn changed(mut events: Vec<String>, say: &Say, is_stream: bool) -> Vec<String> {
    if let Some(usage) = &say.odd.usage {
        events = events.iter().map(|event| with_usage(event, usage)).collect();
    }
    if say.odd.twice && is_stream {
        let (first, last) = (events.first().cloned(), events.last().cloned());
        events = first.into_iter().chain(events).chain(last).collect();
    }
    if say.odd.strange && is_stream {
        let stranger = ": a comment\n\nevent: from_the_future\ndata: {\"type\":\"from_the_future\",\"x\":1}\n\n\
                        id: 7\nretry: 10\n\n";
        events = events.into_iter().map(|event| format!("{stranger}{event}")).collect();
    }
    events
}

fn with_usage(event: &str, usage: &str) -> String {
    let (head, data) = match event.split_once("data: ") {
        Some((head, data)) => (format!("{head}data: "), data.trim_end()),
        None => (String::new(), event),
    };
    let Ok(mut json) = serde_json::from_str::<Value>(data) else { return event.to_owned() };
    change(&mut json, usage);
    let end = if head.is_empty() { "" } else { "\n\n" };
    format!("{head}{json}{end}")
}

fn change(json: &mut Value, usage: &str) {
    let Some(fields) = json.as_object_mut() else { return };
    for name in ["usage", "usageMetadata"] {
        match fields.get_mut(name) {
            Some(_) if usage == "missing" => {
                fields.remove(name);
            }
            Some(counts) => spoil(counts, usage),
            None => {}
        }
    }
    fields.values_mut().for_each(|value| change(value, usage));
}

fn spoil(counts: &mut Value, usage: &str) {
    match counts {
        Value::Object(fields) => fields.values_mut().for_each(|value| spoil(value, usage)),
        Value::Number(_) => {
            *counts = match usage {
                "negative" => json!(-5),
                // Four of them still fit into 64 bits: Rig adds some up unchecked.
                "huge" => json!(u64::MAX / 4),
                _ => json!("many"),
            };
        }
        _ => {}
    }
}

/// Writes an answer that is packed, or whose header comes slowly. None: the connection is at its end.
pub(super) fn write(stream: &mut TcpStream, head: &str, events: &[String], odd: &Odd) -> Option<()> {
    let mut body = events.concat().into_bytes();
    let mut head = head.to_owned();
    if odd.gzip {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(&body).unwrap();
        body = packer.finish().unwrap();
        head.push_str("content-encoding: gzip\r\n");
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    for piece in head.as_bytes().chunks(head.len().div_ceil(HEAD_PIECES)) {
        if let Some(pause) = odd.head_pause {
            std::thread::sleep(pause);
        }
        stream.write_all(piece).ok()?;
    }
    stream.write_all(&body).ok()
}
