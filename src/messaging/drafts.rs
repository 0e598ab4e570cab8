//! Answers while they are being written, for clients that want to see them grow.
//!
//! A draft is no answer: it may stop, begin anew or come to nothing, and what counts is what the outbox
//! holds in the end. There is one for each conversation, and only while a turn writes it; a slow client
//! misses earlier drafts, never a piece of the newest.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::clock::Clock;
use crate::id::ConversationId;
use crate::message::Saying;
use crate::thread::lock;

/// Drafts at once; of a further turn only the answer is seen.
const DRAFTS_MAX: usize = 64;
/// Bytes of one draft; what comes behind them is seen with the answer.
const DRAFT_BYTES_MAX: usize = 256 << 10;

/// What a client has not seen yet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Piece {
    /// Of the draft. What was seen of another number is void.
    pub number: u64,
    /// Where in the draft `content` begins, in bytes.
    pub from: usize,
    pub content: String,
}

struct Draft {
    number: u64,
    text: String,
}

#[derive(Default)]
struct Content {
    newest: u64,
    drafts: HashMap<ConversationId, Draft>,
}

pub struct Drafts(Mutex<Content>);

impl Drafts {
    pub fn new(clock: &dyn Clock) -> Self {
        // Numbers of an earlier start may still be in the hands of clients.
        let newest = u64::try_from(clock.now().0).unwrap_or_default();
        Self(Mutex::new(Content { newest, ..Content::default() }))
    }

    /// A process says something. True when there is something new to see.
    pub fn hear(&self, conversation: &ConversationId, saying: Saying<'_>) -> bool {
        let mut content = lock(&self.0);
        let Content { newest, drafts } = &mut *content;
        match saying {
            Saying::Begins if drafts.len() < DRAFTS_MAX || drafts.contains_key(conversation) => {
                *newest += 1;
                drafts.insert(conversation.clone(), Draft { number: *newest, text: String::new() });
                false
            }
            Saying::Begins => false,
            Saying::More(text) => {
                let draft = drafts.get_mut(conversation);
                let draft = draft.filter(|draft| draft.text.len() + text.len() <= DRAFT_BYTES_MAX);
                draft.map(|draft| draft.text.push_str(text)).is_some()
            }
            Saying::Over => {
                drafts.remove(conversation);
                false
            }
            Saying::Thinking | Saying::Tool { .. } | Saying::Failed => false,
        }
    }

    /// What a client has not seen that has so many bytes of the draft of this number.
    pub fn look(&self, conversation: &ConversationId, number: u64, seen: usize) -> Option<Piece> {
        let content = lock(&self.0);
        let draft = content.drafts.get(conversation)?;
        let from = if number == draft.number { seen } else { 0 };
        let rest = draft.text.get(from..).filter(|rest| !rest.is_empty())?;
        Some(Piece { number: draft.number, from, content: rest.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    fn drafts() -> Drafts {
        Drafts::new(&*SimulatedClock::starting_at(Timestamp(1_000)))
    }

    fn id(name: &str) -> ConversationId {
        ConversationId::new(name)
    }

    fn seen(piece: Option<Piece>) -> Option<(usize, String)> {
        piece.map(|piece| (piece.from, piece.content))
    }

    #[test]
    fn who_looks_on_gets_what_is_new_and_a_new_draft_from_its_beginning() {
        let drafts = drafts();
        assert_eq!(drafts.look(&id("a"), 0, 0), None);
        assert!(!drafts.hear(&id("a"), Saying::Begins));
        assert!(drafts.hear(&id("a"), Saying::More("Grüße ")));
        let first = drafts.look(&id("a"), 0, 0);
        let number = first.as_ref().map_or(0, |piece| piece.number);
        assert_eq!(seen(first), Some((0, "Grüße ".to_owned())));
        assert_eq!(drafts.look(&id("a"), number, 8), None);
        drafts.hear(&id("a"), Saying::More("an alle"));
        assert_eq!(seen(drafts.look(&id("a"), number, 8)), Some((8, "an alle".to_owned())));
        assert_eq!(drafts.look(&id("a"), number, 3), None, "in the middle of a letter");
        assert_eq!(drafts.look(&id("b"), number, 0), None);
        drafts.hear(&id("a"), Saying::Begins);
        drafts.hear(&id("a"), Saying::More("Again"));
        assert_eq!(seen(drafts.look(&id("a"), number, 8)), Some((0, "Again".to_owned())));
        drafts.hear(&id("a"), Saying::Over);
        assert_eq!(drafts.look(&id("a"), number, 8), None);
        assert!(!drafts.hear(&id("a"), Saying::More("too late")));
    }

    #[test]
    fn drafts_are_bounded_in_number_and_length() {
        let drafts = drafts();
        for number in 0..=DRAFTS_MAX {
            drafts.hear(&id(&number.to_string()), Saying::Begins);
        }
        assert!(drafts.hear(&id("0"), Saying::More("x")));
        assert!(!drafts.hear(&id(&DRAFTS_MAX.to_string()), Saying::More("x")), "there is no room");
        assert!(!drafts.hear(&id("0"), Saying::More(&"y".repeat(DRAFT_BYTES_MAX))));
        drafts.hear(&id("1"), Saying::Over);
        drafts.hear(&id("late"), Saying::Begins);
        assert!(drafts.hear(&id("late"), Saying::More("x")));
    }
}
