//! Keys in a text that arrives in pieces: a piece is shown when no key can begin in it and end in the next.

use std::ops::Range;

use super::scrub::{HIDDEN, Scrubber};

/// Bytes of one word without an end that are held back; no maker's key is so long. A configured key that
/// is longer is held back whole.
const WORD_BYTES_MAX: usize = 512;
/// A longer beginning of a configured key is held back also where the text stops for a while.
const BEGINNING_BYTES_MIN: usize = 4;

/// One text on its way to somebody's eyes.
pub struct Veil {
    /// The text is JSON, in which a character can be written as an escape.
    is_json: bool,
    held: String,
}

impl Veil {
    pub fn of_text() -> Self {
        Self { is_json: false, held: String::new() }
    }

    pub fn of_json() -> Self {
        Self { is_json: true, ..Self::of_text() }
    }

    /// What may be shown now that this piece has come: words that are complete.
    pub fn add(&mut self, piece: &str, scrubber: &Scrubber) -> String {
        self.held.push_str(piece);
        self.hide_known(scrubber);
        let word = self.held.char_indices().rev().find(|(_, character)| !is_of_key(*character));
        let word = word.map_or(0, |(at, character)| at + character.len_utf8());
        let end = if self.held.len() - word > WORD_BYTES_MAX { self.held.len() } else { word };
        self.release(end.min(self.known_beginning(scrubber, 1)), scrubber)
    }

    /// What may be shown when another text goes on in between.
    pub fn pause(&mut self, scrubber: &Scrubber) -> String {
        self.release(self.known_beginning(scrubber, BEGINNING_BYTES_MIN), scrubber)
    }

    /// The rest of a text that is over.
    pub fn end(&mut self, scrubber: &Scrubber) -> String {
        self.release(self.held.len(), scrubber)
    }

    fn release(&mut self, end: usize, scrubber: &Scrubber) -> String {
        let rest = self.held.split_off(end);
        scrubber.hide_keys(&std::mem::replace(&mut self.held, rest))
    }

    fn hide_known(&mut self, scrubber: &Scrubber) {
        for key in scrubber.exact() {
            while let Some(range) = self.find(key) {
                self.held.replace_range(range, HIDDEN);
            }
        }
    }

    fn find(&self, key: &str) -> Option<Range<usize>> {
        if let Some(at) = self.held.find(key) {
            return Some(at..at + key.len());
        }
        let read = self.read()?;
        let at = read.text.find(key)?;
        Some(read.places[at]..read.places[at + key.len()])
    }

    /// Where a configured key may begin that is not complete yet, of which so many bytes are there.
    fn known_beginning(&self, scrubber: &Scrubber, bytes_min: usize) -> usize {
        let in_text = |text: &str| {
            let longest = |key: &String| {
                let lengths = (bytes_min..key.len().min(text.len() + 1)).rev();
                lengths
                    .filter(|length| key.is_char_boundary(*length))
                    .find(|length| text.ends_with(&key[..*length]))
            };
            text.len() - scrubber.exact().iter().filter_map(longest).max().unwrap_or(0)
        };
        let end = in_text(&self.held);
        self.read().map_or(end, |read| end.min(read.places[in_text(&read.text)]))
    }

    /// The text with its escapes resolved; none where there are none.
    fn read(&self) -> Option<Read> {
        (self.is_json && self.held.contains('\\')).then(|| Read::of(&self.held))
    }
}

/// Whether a key can go on with it.
fn is_of_key(character: char) -> bool {
    // The backslash begins an escape, whose letters are only then known to be some.
    character.is_ascii_alphanumeric() || "-_.~+/=%*:\\".contains(character)
}

/// JSON as who reads it sees it.
struct Read {
    text: String,
    /// Where in the JSON each byte comes from, and at the end where it is read up to.
    places: Vec<usize>,
}

impl Read {
    fn of(json: &str) -> Self {
        let mut read = Self { text: String::new(), places: Vec::new() };
        let mut at = 0;
        while let Some(first) = json[at..].chars().next() {
            let Some((character, length)) = (match first {
                '\\' => escape(&json[at..]),
                other => Some((other, other.len_utf8())),
            }) else {
                break;
            };
            read.text.push(character);
            read.places.resize(read.text.len(), at);
            at += length;
        }
        read.places.push(at);
        read
    }
}

/// The character that an escape means, and its length; none where it is not complete yet.
fn escape(json: &str) -> Option<(char, usize)> {
    let letter = json[1..].chars().next()?;
    Some(match letter {
        'u' => {
            let digits = json.get(2..6)?;
            // Half of a pair is in no key.
            let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
            (code.unwrap_or(char::REPLACEMENT_CHARACTER), 6)
        }
        'n' => ('\n', 2),
        't' => ('\t', 2),
        'r' => ('\r', 2),
        'b' => ('\u{8}', 2),
        'f' => ('\u{c}', 2),
        other => (other, 1 + other.len_utf8()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "the-k3y of \"ours\"";

    fn scrubber() -> Scrubber {
        Scrubber::new([KEY, "s3cret-value-0001"])
    }

    /// What is shown of a text in pieces of `size` bytes or a little more.
    fn shown(mut veil: Veil, text: &str, size: usize) -> String {
        let (scrubber, mut shown, mut from) = (scrubber(), String::new(), 0);
        while from < text.len() {
            let end = text.ceil_char_boundary((from + size).min(text.len()));
            shown.push_str(&veil.add(&text[from..end], &scrubber));
            from = end;
        }
        shown + &veil.end(&scrubber)
    }

    #[test]
    fn a_key_is_hidden_wherever_it_is_cut() {
        let maker = format!("sk-{}", "a1B2".repeat(8));
        let text = format!("Grüße: {KEY}, {maker} und s3cret-value-0001s3cret-value-0001.");
        let expected = format!("Grüße: {HIDDEN}, {HIDDEN} und {HIDDEN}{HIDDEN}.");
        for size in 1..text.len() {
            assert_eq!(shown(Veil::of_text(), &text, size), expected, "{size}");
        }
    }

    #[test]
    fn in_json_an_escaped_key_is_a_key() {
        let escaped: String =
            "s3cret-value-0001".chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
        let text = format!(
            r#"{{"a": "\\ {} \/ s3cret\u002dvalue-0001", "b": "{escaped}", "c": "gr\u00fcn\n"}}"#,
            KEY.replace('"', "\\\"")
        );
        let expected = format!(r#"{{"a": "\\ {HIDDEN} \/ {HIDDEN}", "b": "{HIDDEN}", "c": "gr\u00fcn\n"}}"#);
        for size in 1..text.len() {
            assert_eq!(shown(Veil::of_json(), &text, size), expected, "{size}");
        }
    }

    #[test]
    fn whole_words_are_shown_at_once_and_nothing_is_held_for_ever() {
        let (scrubber, mut veil) = (scrubber(), Veil::of_text());
        assert_eq!(veil.add("one two", &scrubber), "one ");
        assert_eq!(veil.pause(&scrubber), "two");
        assert_eq!(veil.add(" the-k3", &scrubber), " ");
        assert_eq!(veil.pause(&scrubber), "", "it may become a key");
        assert_eq!(veil.add("g", &scrubber), "");
        assert_eq!(veil.end(&scrubber), "the-k3g");
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        assert_eq!(veil.add(&long, &scrubber), long);
    }

    #[test]
    fn any_pieces_come_out_whole_without_a_key_in_them() {
        let text = "漢字 \\ \\u00 \\uD83D\\ude00 \\\\ \\x é🦀 \\";
        for size in 1..text.len() {
            assert_eq!(shown(Veil::of_json(), text, size), text);
            assert_eq!(shown(Veil::of_text(), text, size), text);
        }
    }
}
