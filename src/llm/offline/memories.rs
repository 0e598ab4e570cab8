//! What `memory_recall` found, and how well it fits what was asked, told by the words they share.

use std::collections::BTreeSet;

use rig_core::completion::ToolDefinition;
use serde_json::{Value, json};

use super::answer::wants_number;
use super::pattern::Words;
use super::phrases::{BranchSentences, Table, fill};
use crate::clock::Timestamp;
use crate::text::shorten;

/// Longest memory repeated in a sentence.
const MAX_MEMORY_BYTES: usize = 600;

/// A memory must hold this many of four words of what is to be forgotten.
const FORGET_QUARTERS: usize = 3;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Memory {
    id: Value,
    pub(super) content: String,
    date: Option<String>,
}

/// The result of `memory_recall`: `{"count": n, "memories": [{"id", "content", "created_at", ..}]}`.
pub(super) fn read(value: Option<&Value>) -> Vec<Memory> {
    let listed = value.and_then(|value| value.get("memories")).and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Memory::of).collect()
}

impl Memory {
    fn of(value: &Value) -> Option<Self> {
        let content = value.get("content")?.as_str()?.trim().to_owned();
        let id = value.get("id").cloned().unwrap_or(Value::Null);
        let date = value.get("created_at").and_then(date_of);
        Some(Self { id, content, date })
    }

    /// The id as `memory_delete` wants it.
    pub(super) fn id_argument(&self, tool: &ToolDefinition) -> Value {
        match &self.id {
            Value::Number(number) if !wants_number(tool, "memory_id") => json!(number.to_string()),
            id => id.clone(),
        }
    }

    pub(super) fn sentence(&self, words: &BranchSentences) -> String {
        let content = shorten(&self.content, MAX_MEMORY_BYTES);
        match &self.date {
            Some(date) => fill(&words.known, &[("what", &content), ("date", date)]),
            None => content.into_owned(),
        }
    }
}

/// The day, from RFC 3339 or from milliseconds.
fn date_of(value: &Value) -> Option<String> {
    let time = match value {
        Value::Number(number) => Timestamp(number.as_i64()?),
        Value::String(text) => Timestamp::parse_rfc3339(text)?,
        _ => return None,
    };
    time.to_rfc3339().split_once('T').map(|(day, _)| day.to_owned())
}

/// The words of a text that say what it is about, without their endings.
pub(super) struct Topic(BTreeSet<String>);

impl Topic {
    pub(super) fn of(table: &Table, text: &str) -> Self {
        let words = Words::of(text);
        let telling =
            words.normals(words.all()).filter(|word| !table.words.empty.iter().any(|empty| empty == word));
        Self(telling.map(stem).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shared(&self, other: &Topic) -> usize {
        self.0.intersection(&other.0).count()
    }
}

/// Cuts English endings, so that `likes` is `liked` and `parties` is `party`. It need not make words,
/// only the same from the same.
fn stem(word: &str) -> String {
    const SHORTEST_STEM: usize = 3;
    let mut stem = word;
    for endings in [&["s"][..], &["ing", "ed"], &["e"]] {
        let shorter = endings.iter().find_map(|ending| stem.strip_suffix(ending));
        stem = shorter
            .filter(|shorter| shorter.len() >= SHORTEST_STEM && !shorter.ends_with('s'))
            .unwrap_or(stem);
    }
    match stem.strip_suffix('y') {
        Some(start) => format!("{start}i"),
        None => stem.to_owned(),
    }
}

/// The memories that share the most words with the topic: all that have more than half as many as the
/// best one, best first. Empty when none shares any.
pub(super) fn about(table: &Table, topic: &Topic, memories: Vec<Memory>) -> Vec<Memory> {
    let mut scored: Vec<(usize, Memory)> = memories
        .into_iter()
        .map(|memory| (topic.shared(&Topic::of(table, &memory.content)), memory))
        .collect();
    let best = scored.iter().map(|(shared, _)| *shared).max().unwrap_or(0);
    scored.retain(|(shared, _)| shared * 2 > best);
    scored.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    scored.into_iter().map(|(_, memory)| memory).collect()
}

/// Which memories a person means who wants one forgotten.
#[derive(Debug, PartialEq)]
pub(super) enum Meant {
    Nothing,
    /// One memory, or several copies of the same words.
    These(Vec<Memory>),
    /// Several that fit equally well.
    Unclear(Vec<Memory>),
}

pub(super) fn meant(table: &Table, topic: &Topic, memories: Vec<Memory>) -> Meant {
    let total = topic.0.len();
    let mut fitting: Vec<(bool, usize, Memory)> = Vec::new();
    for memory in memories {
        let words = Topic::of(table, &memory.content);
        let shared = topic.shared(&words);
        if shared * 4 >= total * FORGET_QUARTERS && shared > 0 {
            fitting.push((words.0 == topic.0, shared, memory));
        }
    }
    let Some((exact, shared)) = fitting.iter().map(|(exact, shared, _)| (*exact, *shared)).max() else {
        return Meant::Nothing;
    };
    fitting.retain(|found| (found.0, found.1) == (exact, shared));
    let best: Vec<Memory> = fitting.into_iter().map(|(_, _, memory)| memory).collect();
    match best.first().map(|first| best.iter().all(|memory| memory.content == first.content)) {
        Some(true) => Meant::These(best),
        _ => Meant::Unclear(best),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::super::phrases::table;
    use super::*;

    fn memories(contents: &[&str]) -> Vec<Memory> {
        let list: Vec<Value> =
            contents.iter().enumerate().map(|(id, text)| json!({"id": id, "content": text})).collect();
        read(Some(&json!({ "count": list.len(), "memories": list })))
    }

    fn contents(memories: &[Memory]) -> Vec<&str> {
        memories.iter().map(|memory| memory.content.as_str()).collect()
    }

    #[test]
    fn word_forms_share_a_stem() {
        for (one, other) in
            [("likes", "liked"), ("parties", "party"), ("living", "lives"), ("glass", "glass")]
        {
            assert_eq!(stem(one), stem(other));
        }
        assert_ne!(stem("tea"), stem("team"));
        assert_eq!(stem("bus"), "bus");
    }

    #[test]
    fn the_best_memories_answer() {
        let table = table().expect("table");
        let topic = Topic::of(table, "Where does Anna live?");
        let found =
            about(table, &topic, memories(&["Anna likes tea", "Anna lives in Ghent", "the car is red"]));
        assert_eq!(contents(&found), ["Anna lives in Ghent"]);
        assert!(about(table, &topic, memories(&["the car is red"])).is_empty());
        assert!(about(table, &topic, vec![]).is_empty());
    }

    #[test]
    fn only_a_clear_memory_is_meant() {
        let table = table().expect("table");
        let all = ["I like tea", "tea is in the third drawer", "the car is red", "I like tea"];
        let meant_by = |text: &str| meant(table, &Topic::of(table, text), memories(&all));
        let Meant::These(copies) = meant_by("that I like tea") else { panic!("copies") };
        assert_eq!(contents(&copies), ["I like tea", "I like tea"]);
        let Meant::These(car) = meant_by("my red car") else { panic!("car") };
        assert_eq!(contents(&car), ["the car is red"]);
        let more = memories(&["I like tea with milk", "I like tea"]);
        let Meant::These(exact) = meant(table, &Topic::of(table, "I like tea"), more) else {
            panic!("exact")
        };
        assert_eq!(contents(&exact), ["I like tea"]);
        let Meant::Unclear(tea) = meant_by("tea") else { panic!("tea") };
        assert_eq!(tea.len(), 3);
        assert_eq!(meant_by("the blue car of Anna"), Meant::Nothing);
        assert_eq!(meant_by("coffee"), Meant::Nothing);
    }

    #[test]
    fn a_day_is_read_from_both_forms() {
        assert_eq!(date_of(&json!("2026-11-21T23:59:00Z")), Some("2026-11-21".to_owned()));
        assert_eq!(date_of(&json!(1_795_255_200_000_i64)), Some("2026-11-21".to_owned()));
        assert_eq!(date_of(&json!("yesterday")), None);
    }
}
