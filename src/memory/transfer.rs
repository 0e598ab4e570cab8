//! Memories as lines of JSON: what `spacebot memory import` reads and `export` writes.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::record::{CONTENT_BYTES_MAX, Memory, MemoryType, NewMemory, Source};
use crate::clock::Timestamp;

/// Longest line that is read, in bytes: the longest content with every character escaped.
pub const LINE_BYTES_MAX: usize = 6 * CONTENT_BYTES_MAX + 20_000;

#[derive(Deserialize)]
struct ImportLine {
    content: String,
    #[serde(rename = "type", alias = "memory_type")]
    memory_type: Option<String>,
    importance: Option<f64>,
    created_at: Option<String>,
    source: Option<String>,
    channel_id: Option<String>,
}

#[derive(Serialize)]
struct ExportLine<'a> {
    id: &'a str,
    content: &'a str,
    r#type: MemoryType,
    importance: f64,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<&'a str>,
    access_count: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forgotten: bool,
}

/// A memory to import and the number by which a second import knows it.
#[derive(Debug, Clone)]
pub struct Imported {
    pub memory: NewMemory,
    pub key: i64,
}

impl Imported {
    /// The key is made of everything that the line says.
    pub fn new(memory: NewMemory) -> Self {
        let mut text = String::new();
        // Writing to a String cannot fail.
        write!(
            text,
            "{}\0{}\0{:?}\0{:?}\0{:?}",
            memory.content,
            memory.memory_type,
            memory.created_at.map(|time| time.0),
            memory.source.as_ref().map(ToString::to_string),
            memory.channel_id
        )
        .ok();
        Self { key: hash(&text).cast_signed(), memory }
    }
}

/// FNV-1a, 64 bits: two different lines among a million share a number once in 37 million imports.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Reads one line. Keys that are not ours are passed over: exports of others have more of them.
///
/// # Errors
/// What is wrong with it, for the operator.
pub fn parse_line(line: &str) -> Result<Imported, String> {
    let line: ImportLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let memory_type = match &line.memory_type {
        Some(word) => word.parse().map_err(|error: super::MemoryError| error.to_string())?,
        None => MemoryType::Fact,
    };
    let created_at = match &line.created_at {
        Some(text) => Some(parse_time(text).ok_or_else(|| format!("created_at {text:?} is no time"))?),
        None => None,
    };
    Ok(Imported::new(NewMemory {
        importance: line.importance,
        source: line.source.as_deref().map(Source::parse),
        channel_id: line.channel_id,
        created_at,
        ..NewMemory::new(memory_type, line.content)
    }))
}

/// RFC 3339, `2023-05-08 13:56:00` or `2023-05-08`, the last two in UTC.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    Timestamp::parse_rfc3339(text)
        .or_else(|| Timestamp::parse_rfc3339(&format!("{}Z", text.replacen(' ', "T", 1))))
        .or_else(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
}

/// The line of one memory, without its end.
pub fn export_line(memory: &Memory) -> String {
    let line = ExportLine {
        id: &memory.id,
        content: &memory.content,
        r#type: memory.memory_type,
        importance: memory.importance,
        created_at: memory.created_at.to_rfc3339_milliseconds(),
        updated_at: memory.updated_at.to_rfc3339_milliseconds(),
        source: memory.source.as_ref().map(ToString::to_string),
        channel_id: memory.channel_id.as_deref(),
        access_count: memory.access_count,
        forgotten: memory.forgotten,
    };
    // A struct of texts and numbers always has a JSON form.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_or_refused_with_a_reason() {
        let good = [
            r#"{"content":"x"}"#,
            r#"{"content":"x","type":"event","importance":0.3,"created_at":"2023-05-08T13:56:00Z","source":"D1:1","other":[1]}"#,
            r#"{"content":"x","memory_type":"goal","created_at":"2023-05-08"}"#,
            r#"{"content":"x","created_at":"2023-05-08 13:56:00"}"#,
            r#"{"content":"a\u0000b \ud83d\ude00"}"#,
        ];
        for line in good {
            assert!(parse_line(line).is_ok(), "{line}: {:?}", parse_line(line));
        }
        let bad = [
            "",
            "x",
            "[]",
            r#"{"type":"fact"}"#,
            r#"{"content":1}"#,
            r#"{"content":"x","type":"rumour"}"#,
            r#"{"content":"x","created_at":"yesterday"}"#,
            r#"{"content":"\ud800"}"#,
        ];
        for line in bad {
            assert!(!parse_line(line).expect_err(line).is_empty());
        }
    }

    #[test]
    fn the_key_is_that_of_the_values() {
        let key = |line: &str| parse_line(line).unwrap().key;
        assert_eq!(
            key(r#"{"content":"x","type":"fact"}"#),
            key(r#"{"type":"fact","content":"x","extra":1}"#)
        );
        assert_ne!(key(r#"{"content":"x"}"#), key(r#"{"content":"x","source":"a"}"#));
        assert_ne!(key(r#"{"content":"x"}"#), key(r#"{"content":"y"}"#));
    }
}
