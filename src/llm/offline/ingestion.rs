//! The responder with a chunk of a file: it cannot tell what matters, so it keeps the words, one memory
//! for each paragraph, and marks them as less than what somebody said.

use serde_json::json;

use super::answer::{Answer, Call};
use super::phrases::Table;
use super::request::Request;
use crate::text::prefix;

/// A paragraph shorter than this is kept together with the next: a heading, a single line.
const SHORT_BYTES: usize = 200;
/// A longer paragraph is cut, behind a sentence or a line where there is one.
const LONG_BYTES: usize = 1_000;
/// Importance of words that nobody has judged.
const IMPORTANCE: f64 = 0.4;

const SAVE: &str = "memory_save";
const COMPLETE: &str = "memory_persistence_complete";

pub(super) fn answer(table: &Table, request: &Request<'_>) -> Answer {
    let words = &table.ingestion;
    // The chunk is the first text: behind it only reminders come.
    let Some(chunk) = request.episodes.first() else { return Answer::Text(words.cannot.clone()) };
    let saves =
        || request.episodes.iter().flat_map(|episode| &episode.steps).filter(|step| step.name == SAVE);
    if !saves().any(|step| step.is_own()) {
        let text = chunk.plain();
        let calls = paragraphs(&text).into_iter().filter_map(|paragraph| {
            let arguments = json!({ "content": paragraph, "memory_type": "fact", "importance": IMPORTANCE });
            Call::of(request, SAVE, arguments)
        });
        let calls: Vec<Call> = calls.collect();
        if !calls.is_empty() {
            return Answer::Calls(calls);
        }
    }
    let ended = request.episodes.iter().any(|episode| episode.own_calls(COMPLETE).next().is_some());
    if ended || saves().any(|step| step.is_own() && step.failure(&[]).is_some()) {
        // Refused, and asking again would not change that. Without the end nothing of this is kept, and
        // the part is read again.
        return Answer::Text(words.cannot.clone());
    }
    // Also those of a model that went away in the middle.
    let ids: Vec<String> = saves()
        .filter_map(|step| step.outcome.as_ref()?.value.as_ref()?.get("saved")?.as_str().map(str::to_owned))
        .collect();
    let (outcome, reason) =
        if ids.is_empty() { ("no_memories", &words.nothing) } else { ("saved", &words.saved) };
    let mut arguments = json!({ "outcome": outcome, "reason": reason });
    if !ids.is_empty() {
        arguments["saved_memory_ids"] = json!(ids);
    }
    match Call::of(request, COMPLETE, arguments) {
        Some(call) => Answer::Calls(vec![call]),
        None => Answer::Text(words.cannot.clone()),
    }
}

/// The text in pieces of a paragraph: nothing but blanks is lost, and nothing comes twice.
fn paragraphs(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut current = String::new();
    for line in text.split_inclusive('\n') {
        if line.trim().is_empty() && current.trim().len() >= SHORT_BYTES {
            push(&mut pieces, &mut current);
        }
        if current.len() + line.len() > LONG_BYTES && current.trim().len() >= SHORT_BYTES {
            push(&mut pieces, &mut current);
        }
        let mut rest = line;
        while current.len() + rest.len() > LONG_BYTES {
            let cut = cut_of(rest, LONG_BYTES.saturating_sub(current.len()));
            current.push_str(&rest[..cut]);
            rest = &rest[cut..];
            push(&mut pieces, &mut current);
        }
        current.push_str(rest);
    }
    push(&mut pieces, &mut current);
    pieces
}

fn push(pieces: &mut Vec<String>, current: &mut String) {
    let piece = current.trim();
    if !piece.is_empty() {
        pieces.push(piece.to_owned());
    }
    current.clear();
}

/// Where a line is cut so that at most `room` bytes stand before it: behind a sentence, else a word,
/// else a character. At least one character.
fn cut_of(line: &str, room: usize) -> usize {
    let head = prefix(line, room);
    let sentence = head.rfind(". ").map(|at| at + 2).filter(|at| *at > room / 2);
    let word = || head.char_indices().rev().find(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8());
    let found = sentence.or_else(word).filter(|at| *at > 0).unwrap_or(head.len());
    if found > 0 { found } else { line.chars().next().map_or(0, char::len_utf8) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_stand_alone_and_headings_with_what_follows() {
        let long = "word ".repeat(60);
        let text = format!("Title\n\n{long}\n\n{long}\n\nEnd.\n");
        let found = paragraphs(&text);
        assert_eq!(found.len(), 3);
        assert!(found[0].starts_with("Title\n\nword") && found[1].starts_with("word"));
        assert_eq!(found[2], "End.");
        assert_eq!(paragraphs(" \n\n"), Vec::<String>::new());
    }

    #[test]
    fn nothing_is_lost_doubled_or_too_long() {
        let mut state: u64 = 7;
        let mut roll = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..500 {
            let length = roll(4_000);
            let text: String = (0..length)
                .map(|_| ['a', 'é', '漢', '.', ' ', ' ', '\n', 'b'][usize::try_from(roll(8)).unwrap()])
                .collect();
            let found = paragraphs(&text);
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            assert_eq!(solid(&found.concat()), solid(&text));
            assert!(found.iter().all(|piece| piece.len() <= LONG_BYTES), "{found:?}");
        }
        let one = "漢".repeat(5_000);
        assert_eq!(paragraphs(&one).concat(), one);
    }
}
