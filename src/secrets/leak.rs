//! Keys in words that are for a person. They are found also when they are written in another alphabet,
//! because a model can be talked into that.
//!
//! Stricter than what is hidden in errors and logs: only what has the whole shape of a maker's key
//! counts here. Who asks for the password in a note of theirs gets it.

use std::ops::Range;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::scrub::{HIDDEN, Scrubber};

/// Beginnings of keys, and how many letters, digits, `-` and `_` follow at least. The makers' own
/// documents, or shorter where a maker has changed the length.
const MAKERS: &[(&str, usize)] = &[
    ("sk-", 20),
    ("AIza", 30),
    ("ghp_", 30),
    ("gho_", 30),
    ("ghu_", 30),
    ("ghs_", 30),
    ("ghr_", 30),
    ("github_pat_", 20),
    ("glpat-", 20),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("xoxa-", 20),
    ("xapp-", 20),
    ("hf_", 30),
    ("gsk_", 30),
    ("xai-", 30),
    ("pplx-", 30),
    ("r8_", 30),
    ("npm_", 30),
    ("AKIA", 16),
    ("ASIA", 16),
    ("BSA", 20),
];
/// Parts of a key with dots between them: JSON web tokens and the bots of Discord. First letters of the
/// first part, and the least bytes of each part.
const DOTTED: &[(&[&str], [usize; 3])] = &[(&["eyJ"], [10, 10, 20]), (&["M", "N", "O"], [24, 6, 27])];
/// The bots of Telegram: digits, a colon, the rest.
const TELEGRAM: (Range<usize>, usize) = (8..11, 35);
/// A private key in its armour, and how long the line may be that says so.
const ARMOUR: (&str, &str, &str) = ("-----BEGIN ", "PRIVATE KEY-----", "-----END ");
const ARMOUR_LINE: usize = 80;
/// Shorter runs are decoded to fewer bytes than a key has.
const BASE64_RUN: usize = 24;
const HEX_RUN: usize = 40;

impl Scrubber {
    /// True when the text holds a configured key or the key of a known maker, also percent-encoded, in
    /// base64 or in hexadecimal digits.
    pub fn finds_key(&self, text: &str) -> bool {
        let holds = |text: &str| self.knows(text) || next_key(text, 0).is_some();
        let bytes = |bytes: Vec<u8>| holds(&String::from_utf8_lossy(&bytes));
        holds(text)
            || (text.contains('%') && bytes(percent_encoding::percent_decode_str(text).collect()))
            || runs(text, BASE64_RUN, is_base64).any(|run| decoded_base64(run).is_some_and(bytes))
            || runs(text, HEX_RUN, |byte| byte.is_ascii_hexdigit()).any(|run| bytes(decoded_hex(run)))
    }

    /// The text with [`HIDDEN`] in place of the keys that stand in it as they are.
    pub fn hide_keys(&self, text: &str) -> String {
        let mut hidden = self.hide_known(text);
        let mut from = 0;
        while let Some(range) = next_key(&hidden, from) {
            from = range.start + HIDDEN.len();
            hidden.replace_range(range, HIDDEN);
        }
        hidden
    }
}

/// The first key at byte `from` or behind it.
fn next_key(text: &str, from: usize) -> Option<Range<usize>> {
    let starts = |at: &usize| !text[..*at].ends_with(|before: char| before.is_ascii_alphanumeric());
    let places = text[from..].char_indices().map(|(at, _)| from + at).filter(starts);
    places.into_iter().find_map(|at| Some(at..at + key_length(&text[at..])?))
}

/// How long the key is that this text begins with.
fn key_length(text: &str) -> Option<usize> {
    let of_maker = |(prefix, least): &(&str, usize)| {
        let rest = text.strip_prefix(prefix)?;
        let length = word_length(rest);
        // A name of words with dashes between them has no digit.
        let mixed = rest[..length].bytes().any(|byte| byte.is_ascii_digit())
            && rest[..length].bytes().any(|byte| byte.is_ascii_alphabetic());
        (length >= *least && mixed).then_some(prefix.len() + length)
    };
    MAKERS
        .iter()
        .find_map(of_maker)
        .or_else(|| dotted(text))
        .or_else(|| telegram(text))
        .or_else(|| armoured(text))
}

fn dotted(text: &str) -> Option<usize> {
    let fits = |(begins, least): &&(&[&str], [usize; 3])| {
        begins.iter().any(|begin| text.starts_with(begin))
            && parts(text).is_some_and(|parts| parts.iter().zip(least).all(|(part, least)| part >= least))
    };
    DOTTED.iter().find(fits)?;
    parts(text).map(|parts| parts.iter().sum::<usize>() + parts.len() - 1)
}

/// The lengths of three words with dots between them.
fn parts(text: &str) -> Option<[usize; 3]> {
    let first = word_length(text);
    let rest = text[first..].strip_prefix('.')?;
    let second = word_length(rest);
    let rest = rest[second..].strip_prefix('.')?;
    Some([first, second, word_length(rest)])
}

fn telegram(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text[digits..].strip_prefix(':').filter(|_| TELEGRAM.0.contains(&digits))?;
    let length = word_length(rest);
    (length >= TELEGRAM.1).then_some(digits + 1 + length)
}

fn armoured(text: &str) -> Option<usize> {
    let (begin, kind, end) = ARMOUR;
    let line = text.strip_prefix(begin)?.lines().next()?;
    let named = line.find(kind).filter(|length| *length <= ARMOUR_LINE)?;
    let last = text.find(end).map(|at| at + text[at..].lines().next().map_or(0, str::len));
    Some(last.unwrap_or(begin.len() + named + kind.len()))
}

/// Bytes that belong to one word of a key.
fn word_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count()
}

/// Runs of such bytes that are at least so long. Each byte that `belongs` accepts is ASCII.
fn runs(text: &str, least: usize, belongs: fn(u8) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |character: char| !u8::try_from(character).is_ok_and(belongs))
        .filter(move |run| run.len() >= least)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// In either alphabet, with or without padding.
fn decoded_base64(run: &str) -> Option<Vec<u8>> {
    let alphabet =
        if run.contains(['-', '_']) { &base64::alphabet::URL_SAFE } else { &base64::alphabet::STANDARD };
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let run = run.trim_end_matches('=');
    // One letter over is no byte.
    let whole = if run.len() % 4 == 1 { &run[..run.len() - 1] } else { run };
    GeneralPurpose::new(alphabet, config).decode(whole).ok()
}

fn decoded_hex(run: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
    run.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Each line: what is said, an arrow, what is left of it; `=` where it holds no key.
    const CASES: &str = include_str!("../../tests/fixtures/secrets/leaks.txt");

    #[test]
    fn whole_keys_are_found_and_ordinary_words_are_not() {
        let scrubber = Scrubber::new(["my-own-key-1234"]);
        let mut cases = 0;
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (said, left) = line.split_once(" => ").expect(line);
            let said = said.replace("\\n", "\n");
            match left {
                "=" => {
                    assert!(!scrubber.finds_key(&said), "{said}");
                    assert_eq!(scrubber.hide_keys(&said), said);
                }
                left => {
                    assert!(scrubber.finds_key(&said), "{said}");
                    assert_eq!(scrubber.hide_keys(&said), left.replace("\\n", "\n"));
                }
            }
            cases += 1;
        }
        assert!(cases > 30, "{cases}");
    }

    #[test]
    fn keys_in_other_alphabets_are_found() {
        let scrubber = Scrubber::new(["my-own-key-1234"]);
        for key in ["sk-ant-api03-AAAAbbbbCCCCdddd0123", "my-own-key-1234"] {
            let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
            let percent: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let padded = format!("the key is {key}!");
            let engines =
                [&base64::engine::general_purpose::STANDARD, &base64::engine::general_purpose::URL_SAFE];
            let encoded = engines.map(|engine| engine.encode(&padded));
            for said in [format!("{hex}0000000000"), percent, encoded[0].clone(), encoded[1].clone()] {
                assert!(scrubber.finds_key(&format!("it is {said} .")), "{said}");
            }
        }
    }

    #[test]
    fn any_text_survives_without_a_panic() {
        let pieces = [
            "é",
            "sk-",
            "漢字abcdefgh",
            "eyJ",
            ".",
            "-----BEGIN ",
            "PRIVATE KEY-----",
            "%",
            "12345678:",
            "\n",
            "0aF",
        ];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let text = format!("{first}{second}{third}").repeat(9);
                    Scrubber::default().finds_key(&text);
                    Scrubber::default().hide_keys(&text);
                }
            }
        }
    }
}
