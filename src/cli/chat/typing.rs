//! An answer that grows on a terminal while it is being written.

use std::io::Write;

use super::client::Piece;
use super::{ChatError, printable};

/// What stands on the last line of the terminal and is no whole answer yet.
#[derive(Default)]
pub(in crate::cli) struct Typing {
    /// Of the draft that is shown, and bytes of it that were.
    seen: (u64, usize),
    shown: String,
}

impl Typing {
    /// Number of the draft and bytes of it that were seen.
    pub(in crate::cli) fn seen(&self) -> (u64, usize) {
        self.seen
    }

    /// More of a draft has come.
    pub(in crate::cli) fn grow(&mut self, out: &mut impl Write, piece: &Piece) -> Result<(), ChatError> {
        if piece.number != self.seen.0 {
            self.leave(out)?;
        }
        self.seen = (piece.number, piece.from + piece.content.len());
        self.shown.push_str(&piece.content);
        write(out, &printable(&piece.content))
    }

    /// A whole message has come: what of it stands there already is not printed again.
    pub(in crate::cli) fn end(&mut self, out: &mut impl Write, message: &str) -> Result<(), ChatError> {
        let shown = std::mem::take(&mut self.shown);
        match message.strip_prefix(shown.trim_end()).filter(|_| !shown.is_empty()) {
            Some(rest) => {
                let gap = &shown[shown.trim_end().len()..];
                write(out, &format!("{}\n", printable(rest.strip_prefix(gap).unwrap_or(rest))))
            }
            None => {
                let line = if shown.is_empty() { "" } else { "\n" };
                write(out, &format!("{line}{}\n", printable(message)))
            }
        }
    }

    /// What stands there will not go on.
    pub(in crate::cli) fn leave(&mut self, out: &mut impl Write) -> Result<(), ChatError> {
        match std::mem::take(&mut self.shown).is_empty() {
            true => Ok(()),
            false => write(out, " …\n"),
        }
    }
}

fn write(out: &mut impl Write, text: &str) -> Result<(), ChatError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ChatError::Output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What stands on the terminal behind these pieces and messages.
    fn shown(steps: &[Result<(u64, usize, &str), &str>]) -> String {
        let (mut out, mut typing) = (Vec::new(), Typing::default());
        for step in steps {
            match *step {
                Ok((number, from, content)) => {
                    typing.grow(&mut out, &Piece { number, from, content: content.to_owned() }).unwrap();
                }
                Err(message) => typing.end(&mut out, message).unwrap(),
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_message_that_was_seen_growing_is_not_printed_again() {
        assert_eq!(shown(&[Ok((1, 0, "one ")), Ok((1, 4, "two ")), Err("one two three")]), "one two three\n");
        assert_eq!(shown(&[Ok((1, 0, "one ")), Err("one")]), "one \n");
        assert_eq!(shown(&[Err("one"), Err("two")]), "one\ntwo\n");
    }

    #[test]
    fn what_came_to_something_else_is_left() {
        assert_eq!(shown(&[Ok((1, 0, "one ")), Err("two")]), "one \ntwo\n");
        assert_eq!(shown(&[Ok((1, 0, "one ")), Ok((2, 0, "two ")), Err("two three")]), "one  …\ntwo three\n");
        assert_eq!(shown(&[Ok((1, 0, "a\u{1b}[31m ")), Err("a\u{1b}[31m b")]), "a[31m b\n");
    }

    #[test]
    fn a_poll_asks_for_what_was_not_seen() {
        let (mut out, mut typing) = (Vec::new(), Typing::default());
        assert_eq!(typing.seen(), (0, 0));
        typing.grow(&mut out, &Piece { number: 3, from: 0, content: "Grüße ".to_owned() }).unwrap();
        assert_eq!(typing.seen(), (3, 8));
    }
}
