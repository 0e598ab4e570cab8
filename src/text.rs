//! Cutting text without cutting a character, and guessing how many tokens it is.

use std::borrow::Cow;

/// The longest prefix of at most `max_bytes` bytes that ends on a character border.
pub fn prefix(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes.min(text.len()))]
}

/// The longest suffix of at most `max_bytes` bytes that begins on a character border.
pub fn suffix(text: &str, max_bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max_bytes))..]
}

/// At most `max_bytes` bytes, with an ellipsis where something was cut.
pub fn shorten(text: &str, max_bytes: usize) -> Cow<'_, str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}{ELLIPSIS}", prefix(text, max_bytes.saturating_sub(ELLIPSIS.len()))))
}

/// The same text on one line, runs of white space as one blank, at most `max_bytes` bytes.
pub fn one_line(text: &str, max_bytes: usize) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shorten(&joined, max_bytes).into_owned()
}

/// Whether a model's name may end in this and still mean the same model: `20250929`, `2024-08-06` or `latest`.
pub fn is_snapshot(text: &str) -> bool {
    let shape: String = text.chars().map(|sign| if sign.is_ascii_digit() { '0' } else { sign }).collect();
    text == "latest" || shape == "00000000" || shape == "0000-00-00"
}

/// What a token is taken for; `llm::tokens` corrects it by what the providers count.
pub const CHARACTERS_PER_TOKEN: usize = 4;

/// Token estimate of the compactor: characters divided by four, at least one for any text.
pub fn estimate_tokens(text: &str) -> usize {
    text.chars().count().div_ceil(CHARACTERS_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_fall_on_character_borders() {
        let text = "aé漢字🦀z";
        for max in 0..=text.len() + 2 {
            assert!(prefix(text, max).len() <= max && text.starts_with(prefix(text, max)));
            assert!(suffix(text, max).len() <= max && text.ends_with(suffix(text, max)));
            assert!(shorten(text, max.max(3)).len() <= max.max(3));
        }
    }

    #[test]
    fn one_line_joins_lines() {
        assert_eq!(one_line(" a\n\n b\tc ", 100), "a b c");
    }
}
