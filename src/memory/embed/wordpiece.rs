//! From text to the numbers of its word pieces, as uncased BERT models take it: control characters out,
//! accents off, lower case, signs and Chinese characters by themselves, then the longest pieces of the
//! vocabulary from the left.
//!
//! Rules: Devlin et al., BERT (2018), as the model's own tokenizer.json spells them out.

use std::collections::HashMap;

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

/// Longest sequence that the model was trained for, in pieces, both ends included.
pub const PIECES_MAX: usize = 256;
/// A word with more characters than this is unknown as a whole.
const WORD_CHARACTERS_MAX: usize = 100;
/// What is read of a text, in bytes: far more than fits into the pieces.
const TEXT_BYTES_MAX: usize = 16_000;

pub struct WordPiece {
    pieces: HashMap<String, i64>,
    unknown: i64,
    begin: i64,
    end: i64,
}

impl WordPiece {
    /// `vocabulary` has one piece in each line; its number is that of the line, from 0.
    ///
    /// # Errors
    /// A piece that every vocabulary has is missing.
    pub fn new(vocabulary: &str) -> Result<Self, String> {
        let pieces: HashMap<String, i64> =
            vocabulary.lines().zip(0..).map(|(piece, number)| (piece.to_owned(), number)).collect();
        let find =
            |piece: &str| pieces.get(piece).copied().ok_or_else(|| format!("no {piece} in the vocabulary"));
        let (unknown, begin, end) = (find("[UNK]")?, find("[CLS]")?, find("[SEP]")?);
        Ok(Self { pieces, unknown, begin, end })
    }

    /// The pieces of `text`, at most [`PIECES_MAX`], with the model's begin and end.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let mut found = vec![self.begin];
        let mut word = String::new();
        for character in normalised(crate::text::prefix(text, TEXT_BYTES_MAX)) {
            if found.len() >= PIECES_MAX {
                break;
            }
            if character.is_whitespace() {
                self.finish(&mut word, &mut found);
            } else if is_punctuation(character) {
                self.finish(&mut word, &mut found);
                word.push(character);
                self.finish(&mut word, &mut found);
            } else {
                word.push(character);
            }
        }
        self.finish(&mut word, &mut found);
        found.truncate(PIECES_MAX - 1);
        found.push(self.end);
        found
    }

    fn finish(&self, word: &mut String, found: &mut Vec<i64>) {
        if word.is_empty() {
            return;
        }
        let before = found.len();
        if word.chars().count() > WORD_CHARACTERS_MAX || !self.split(word, found) {
            found.truncate(before);
            found.push(self.unknown);
        }
        word.clear();
    }

    /// The longest pieces from the left; false when a rest is in no piece.
    fn split(&self, word: &str, found: &mut Vec<i64>) -> bool {
        let (mut start, mut candidate) = (0, String::new());
        while start < word.len() {
            let ends = word[start..].char_indices().map(|(at, character)| start + at + character.len_utf8());
            let ends: Vec<usize> = ends.collect();
            let longest = ends.iter().rev().find_map(|end| {
                candidate.clear();
                candidate.push_str(if start > 0 { "##" } else { "" });
                candidate.push_str(&word[start..*end]);
                self.pieces.get(candidate.as_str()).map(|number| (*end, *number))
            });
            let Some((end, number)) = longest else { return false };
            found.push(number);
            start = end;
        }
        true
    }
}

fn normalised(text: &str) -> impl Iterator<Item = char> {
    text.chars()
        .filter(|character| !is_dropped(*character))
        .flat_map(|character| {
            let spaced = is_chinese(character).then_some(' ');
            let character = if character.is_whitespace() { ' ' } else { character };
            [spaced, Some(character), spaced].into_iter().flatten()
        })
        .nfd()
        .filter(|character| !character.is_mark_nonspacing())
        .flat_map(char::to_lowercase)
}

fn is_dropped(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        _ => character.is_other(),
    }
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || character.is_punctuation()
}

/// The blocks that BERT calls Chinese; kana and Hangul are not among them.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
