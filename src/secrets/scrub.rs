//! Hides keys in text that goes to a log, a person or a file.
//!
//! Providers quote requests in their error messages, keys included. Hidden are the configured keys
//! themselves, whatever looks like a key of a known maker, what follows `Bearer` and the like, values
//! of key-like parameters, and user and password of an address.

use std::ops::Range;

/// What stands in for a key.
pub const HIDDEN: &str = "[hidden]";

/// A shorter configured value ("none", "ollama") would blank out ordinary words.
const EXACT_BYTES_MIN: usize = 8;
/// The part after a maker's prefix is longer than this in every real key.
const REST_BYTES_MIN: usize = 8;
/// Beginnings of keys and tokens, by their makers.
const PREFIXES: &[&str] = &[
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "AIza",
    "ya29.",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "xapp-",
    "hf_",
    "gsk_",
    "xai-",
    "pplx-",
    "r8_",
    "AKIA",
    "ASIA",
    "eyJ",
    "npm_",
];
/// The word after one of these, divided by a blank, is a credential.
const SCHEMES: &[&str] = &["bearer", "basic"];
/// The value of a field or parameter that ends in one of these is a credential.
const NAMES: &[&str] =
    &["key", "token", "secret", "password", "passwd", "authorization", "signature", "credential", "apikey"];

/// Knows the configured keys.
#[derive(Clone, Default)]
pub struct Scrubber {
    /// Longest first, so that a key which contains another is hidden whole.
    exact: Vec<String>,
}

impl Scrubber {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        let mut exact: Vec<String> = keys
            .into_iter()
            .map(str::trim)
            .filter(|key| key.len() >= EXACT_BYTES_MIN)
            .map(str::to_owned)
            .collect();
        exact.sort_by_key(|key| std::cmp::Reverse(key.len()));
        exact.dedup();
        Self { exact }
    }

    /// The same with one key more.
    #[must_use]
    pub fn and(&self, key: &str) -> Self {
        Self::new(self.exact.iter().map(String::as_str).chain([key]))
    }

    /// Whatever may be a key is hidden: for errors and logs, where a word too much is no loss.
    pub fn scrub(&self, text: &str) -> String {
        hide_patterns(&self.hide_known(text))
    }

    /// The text without the configured keys.
    pub fn hide_known(&self, text: &str) -> String {
        let mut scrubbed = text.to_owned();
        for key in &self.exact {
            if scrubbed.contains(key.as_str()) {
                scrubbed = scrubbed.replace(key.as_str(), HIDDEN);
            }
        }
        scrubbed
    }

    /// The configured keys, the longest first.
    pub(super) fn exact(&self) -> &[String] {
        &self.exact
    }

    pub(super) fn knows(&self, text: &str) -> bool {
        self.exact.iter().any(|key| text.contains(key.as_str()))
    }
}

fn hide_patterns(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        match secret_at(text, at) {
            Some(range) => {
                hidden.push_str(&text[copied..range.start]);
                hidden.push_str(HIDDEN);
                copied = range.end;
                at = range.end;
            }
            None => at = text.ceil_char_boundary(at + 1),
        }
    }
    hidden.push_str(&text[copied..]);
    hidden
}

/// The secret that is announced at byte `at`, wherever it then lies.
fn secret_at(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    let before = text[..at].chars().next_back();
    if let Some(found) = rest.strip_prefix("://") {
        return user_and_password(found).map(|length| at + 3..at + 3 + length);
    }
    let starts_word = !before.is_some_and(|character| character.is_ascii_alphanumeric());
    if !starts_word {
        return None;
    }
    if let Some(prefix) = PREFIXES.iter().find(|prefix| rest.starts_with(**prefix)) {
        let length = token_length(&rest[prefix.len()..]);
        if length >= REST_BYTES_MIN {
            return Some(at..at + prefix.len() + length);
        }
    }
    let after_scheme = SCHEMES.iter().find_map(|scheme| {
        let blanks = rest[strip_word(rest, scheme)?..].bytes().take_while(|byte| *byte == b' ').count();
        (blanks > 0).then_some(scheme.len() + blanks)
    });
    if let Some(start) = after_scheme {
        let length = token_length(&rest[start..]);
        return (length >= REST_BYTES_MIN).then(|| at + start..at + start + length);
    }
    let start = NAMES.iter().find_map(|name| value_start(rest, name))?;
    let length = token_length(&rest[start..]);
    let is_word = SCHEMES.iter().any(|scheme| strip_word(&rest[start..], scheme).is_some());
    (length > 0 && !is_word && !rest[start..].starts_with(HIDDEN)).then(|| at + start..at + start + length)
}

/// The length of `word` when `text` begins with it, in any case.
fn strip_word(text: &str, word: &str) -> Option<usize> {
    let begins = text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    begins.then_some(word.len())
}

/// Where the value begins in `key=value`, `"key": "value"` and `key: value`.
fn value_start(text: &str, name: &str) -> Option<usize> {
    let mut at = strip_word(text, name)?;
    let skip =
        |at: usize, set: &str| text[at..].bytes().take_while(|byte| set.as_bytes().contains(byte)).count();
    at += skip(at, "\"'\\");
    at += skip(at, " ");
    if !matches!(text.as_bytes().get(at), Some(b'=' | b':')) {
        return None;
    }
    at += 1;
    at += skip(at, " ");
    at += skip(at, "\"'\\");
    Some(at)
}

/// Bytes of `text` that belong to one key or token.
fn token_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=%*".contains(byte)).count()
}

/// The length of `user:password` when the address after `://` has them.
fn user_and_password(text: &str) -> Option<usize> {
    let authority = text.find(|character: char| "/?#\"' \n\t".contains(character)).unwrap_or(text.len());
    text[..authority].rfind('@').filter(|length| *length > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Each line: what came in, an arrow, what may go out.
    const CASES: &str = include_str!("../../tests/fixtures/secrets/scrub.txt");

    #[test]
    fn keys_are_hidden_and_ordinary_words_are_not() {
        let scrubber = Scrubber::new(["my-own-key-1234", "my-own-key-1234-longer", "short"]);
        let mut cases = 0;
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (before, after) = line.split_once(" => ").expect(line);
            assert_eq!(scrubber.scrub(before), after, "{before}");
            assert_eq!(scrubber.scrub(after), after, "scrubbing twice changes {after}");
            cases += 1;
        }
        assert!(cases > 30, "{cases}");
    }

    #[test]
    fn any_text_survives_without_a_panic() {
        let pieces = ["é", "sk-", "漢字abcdefgh", "://", "@", "Bearer ", "key=", "\"", "🦀", " ", ":", "x"];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    Scrubber::default().scrub(&format!("{first}{second}{third}"));
                }
            }
        }
    }
}
