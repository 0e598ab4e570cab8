//! What was said in our channels before their conversations began: a ring of lines for each of them, until
//! its first message is on disk. And since when a conversation goes on, so that nothing older is taken for one of
//! its messages.

use std::collections::VecDeque;

use crate::clock::Timestamp;
use crate::message::{Beginning, Earlier};
use crate::text;

/// Lines of one channel: as many as the config can ask for.
const LINES_MAX: usize = 200;
/// Bytes of one of them: hardly less than a line of most servers.
const LINE_BYTES: usize = 400;
/// Of its message id, which tells a line that comes twice.
const ID_BYTES: usize = 256;

/// By channel; no more than the config has.
#[derive(Debug, Default)]
pub(super) struct Beginnings(Vec<Channel>);

#[derive(Debug)]
struct Channel {
    /// As the server folds it.
    name: String,
    state: State,
}

#[derive(Debug)]
enum State {
    New(Ring),
    Known(Timestamp),
}

#[derive(Debug)]
struct Ring {
    most: usize,
    lines: VecDeque<(Option<String>, Earlier)>,
}

impl Beginnings {
    /// We are in a channel now, and it was asked about.
    pub(super) fn enter(&mut self, name: &str, beginning: Option<Beginning>) {
        self.0.retain(|channel| channel.name != name);
        let state = match beginning {
            None => return,
            Some(Beginning::New { lines }) => {
                State::New(Ring { most: lines.min(LINES_MAX), lines: VecDeque::new() })
            }
            Some(Beginning::Known { since }) => State::Known(since),
        };
        self.0.push(Channel { name: name.to_owned(), state });
    }

    pub(super) fn is_new(&self, name: &str) -> bool {
        matches!(self.find(name), Some(State::New(_)))
    }

    /// Since when its conversation goes on, as far as that is known.
    pub(super) fn since(&self, name: &str) -> Option<Timestamp> {
        match self.find(name)? {
            State::New(_) => None,
            State::Known(since) => Some(*since),
        }
    }

    /// Somebody said this, and it is no message of a conversation.
    pub(super) fn keep(&mut self, name: &str, id: Option<&str>, line: Earlier) {
        let Some(State::New(ring)) = self.find_mut(name) else { return };
        let id = id.filter(|id| id.len() <= ID_BYTES);
        if id.is_some() && ring.lines.iter().any(|(known, _)| known.as_deref() == id) {
            return;
        }
        let line = Earlier { text: text::shorten(&line.text, LINE_BYTES).into_owned(), ..line };
        ring.lines.push_back((id.map(str::to_owned), line));
        while ring.lines.len() > ring.most {
            ring.lines.pop_front();
        }
    }

    /// All that is kept of a channel, oldest first; what has no time, before that.
    pub(super) fn lines(&self, name: &str) -> Vec<Earlier> {
        let Some(State::New(ring)) = self.find(name) else { return Vec::new() };
        let mut lines: Vec<_> = ring.lines.iter().map(|(_, line)| line.clone()).collect();
        lines.sort_by_key(|line| line.at);
        lines
    }

    /// The first message of the conversation is on disk.
    pub(super) fn begin(&mut self, name: &str, now: Timestamp) {
        if let Some(state @ State::New(_)) = self.find_mut(name) {
            *state = State::Known(now);
        }
    }

    fn find(&self, name: &str) -> Option<&State> {
        self.0.iter().find(|channel| channel.name == name).map(|channel| &channel.state)
    }

    fn find_mut(&mut self, name: &str) -> Option<&mut State> {
        self.0.iter_mut().find(|channel| channel.name == name).map(|channel| &mut channel.state)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> Earlier {
        Earlier { sender_name: "una".to_owned(), at: Some(Timestamp(at)), text: text.to_owned(), own: false }
    }

    #[test]
    fn the_newest_lines_are_kept_once_and_in_their_order_until_the_conversation_begins() {
        let mut beginnings = Beginnings::default();
        beginnings.keep("#pi", None, line(1, "nobody has asked for it"));
        assert!(beginnings.lines("#pi").is_empty() && !beginnings.is_new("#pi"));
        beginnings.enter("#pi", Some(Beginning::New { lines: 3 }));
        beginnings.keep("#pi", Some("live"), line(9, "said live"));
        for at in 1..=3 {
            beginnings.keep("#pi", Some(&format!("m{at}")), line(at, &format!("line {at}")));
        }
        beginnings.keep("#pi", Some("m3"), line(3, "line 3"));
        beginnings.keep("#pi", None, line(4, &"é".repeat(500)));
        let kept = beginnings.lines("#pi");
        let texts: Vec<_> = kept.iter().map(|line| text::prefix(&line.text, 6)).collect();
        assert_eq!(texts, ["line 2", "line 3", "ééé"]);
        assert!(kept[2].text.len() <= LINE_BYTES);
        assert_eq!(beginnings.since("#pi"), None);
        beginnings.begin("#pi", Timestamp(7));
        beginnings.begin("#pi", Timestamp(8));
        assert_eq!((beginnings.since("#pi"), beginnings.lines("#pi").len()), (Some(Timestamp(7)), 0));
    }

    #[test]
    fn without_room_nothing_is_kept_and_yet_the_conversation_is_new() {
        let mut beginnings = Beginnings::default();
        beginnings.enter("#pi", Some(Beginning::New { lines: 0 }));
        beginnings.keep("#pi", None, line(1, "x"));
        assert!(beginnings.is_new("#pi") && beginnings.lines("#pi").is_empty());
    }
}
