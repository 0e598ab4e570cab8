//! Turns an answer into lines that fit into IRC messages.

use crate::text;

/// Control characters that people see as formatting; every other one but the tab is removed. The
/// code 1 is not among them: it would make a line a CTCP request.
const FORMATTING: [char; 8] = ['\u{2}', '\u{3}', '\u{4}', '\u{f}', '\u{11}', '\u{16}', '\u{1d}', '\u{1f}'];
/// Least room that is used: one character of the widest kind.
const LEAST_ROOM: usize = 4;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) lines: Vec<String>,
    /// Lines beyond the limit.
    pub(super) left_out: usize,
}

/// Cuts `text` at its line breaks and then into pieces of at most `room` bytes, between words where
/// that is possible and never inside a character. Empty lines are skipped.
pub(super) fn split(text: &str, room: usize, limit: usize) -> Split {
    let room = room.max(LEAST_ROOM);
    let mut split = Split { lines: Vec::new(), left_out: 0 };
    for line in text.split(['\n', '\r']) {
        let line: String = line.chars().filter(|letter| is_sendable(*letter)).collect();
        let mut rest = line.trim_end();
        while !rest.is_empty() {
            let (piece, after) = cut(rest, room);
            rest = after;
            if piece.is_empty() {
                continue;
            }
            if split.lines.len() < limit {
                split.lines.push(piece.to_owned());
            } else {
                split.left_out += 1;
            }
        }
    }
    split
}

fn is_sendable(letter: char) -> bool {
    !letter.is_control() || letter == '\t' || FORMATTING.contains(&letter)
}

/// The first piece of a line without trailing blanks, and the rest without the blanks between.
fn cut(line: &str, room: usize) -> (&str, &str) {
    if line.len() <= room {
        return (line, "");
    }
    let head = text::prefix(line, room);
    let border = match line[head.len()..].starts_with(char::is_whitespace) {
        true => Some(head.len()),
        false => head.rfind(char::is_whitespace),
    };
    // Blanks alone are no piece: then the first word is longer than the room and is cut.
    let end = border.filter(|end| !line[..*end].trim().is_empty()).unwrap_or(head.len());
    (line[..end].trim_end(), line[end..].trim_start())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lines(text: &str, room: usize) -> Vec<String> {
        split(text, room, 100).lines
    }

    #[test]
    fn lines_end_between_words_and_between_characters() {
        assert_eq!(lines("one two three", 7), ["one two", "three"]);
        assert_eq!(lines("one two three", 8), ["one two", "three"]);
        assert_eq!(lines("one two three", 6), ["one", "two", "three"]);
        assert_eq!(lines("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(lines("ééé", 5), ["éé", "é"]);
        assert_eq!(lines("🦀🦀", 4), ["🦀", "🦀"]);
        assert_eq!(lines("🦀", 1), ["🦀"]);
        assert_eq!(lines("        wide", 4), ["", "wide"].map(str::to_owned)[1..].to_vec());
    }

    #[test]
    fn breaks_and_control_characters_cannot_leave() {
        assert_eq!(lines("a\r\n\r\n b \n\0\u{1}VERSION\u{1}\rQUIT", 20), ["a", " b", "VERSION", "QUIT"]);
        assert_eq!(lines("\u{2}bold\u{2}\tx\u{7}\u{7f}\u{85}", 20), ["\u{2}bold\u{2}\tx"]);
        assert!(lines(" \n\r\n\0 ", 20).is_empty());
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let split = split("a\nb\nc\ndddd dd", 4, 2);
        assert_eq!((split.lines, split.left_out), (vec!["a".to_owned(), "b".to_owned()], 3));
    }
}
