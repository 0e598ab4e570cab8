//! The pattern language of the phrase table (described at the top of `phrases.toml`) and the words
//! that it is matched against.

use std::ops::Range;

/// Only so many words of a message are compared; what a message says comes at its beginning, and a
/// capture at the end of a pattern still reaches the end of the text.
const MAX_WORDS: usize = 256;

/// Open elements of one pattern; two keep matching quadratic in [`MAX_WORDS`] at worst.
const MAX_OPEN_ELEMENTS: usize = 2;

/// A text and its words.
pub(super) struct Words<'a> {
    text: &'a str,
    words: Vec<Word>,
    /// There are more words than we look at.
    cut: bool,
}

struct Word {
    /// Lower case, without apostrophes.
    normal: String,
    start: usize,
    end: usize,
}

impl<'a> Words<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut words = Vec::new();
        let mut at = 0;
        while let Some(offset) = text[at..].find(|c: char| c.is_alphanumeric() || c == '$') {
            let start = at + offset;
            let end = word_end(text, start);
            at = end;
            if text[start..].starts_with('$') && !stands_alone(text, start) {
                continue;
            }
            if words.len() == MAX_WORDS {
                return Self { text, words, cut: true };
            }
            words.push(Word { normal: normal(&text[start..end]), start, end });
        }
        Self { text, words, cut: false }
    }

    pub(super) fn all(&self) -> Range<usize> {
        0..self.words.len()
    }

    /// The end is not the end of the text.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// What was written from word `range.start` up to the next word after the range, without the
    /// separators around it.
    pub(super) fn written(&self, range: Range<usize>) -> &'a str {
        let start =
            range.start.checked_sub(1).and_then(|last| self.words.get(last)).map_or(0, |word| word.end);
        let end = self.words.get(range.end).map_or(self.text.len(), |word| word.start);
        trim_separators(&self.text[start..end.max(start)])
    }

    /// The lower-case words of a range.
    pub(super) fn normals(&self, range: Range<usize>) -> impl Iterator<Item = &str> {
        self.words[range].iter().map(|word| word.normal.as_str())
    }

    pub(super) fn begins_with(&self, range: Range<usize>, sequence: &[String]) -> bool {
        range.len() >= sequence.len()
            && self.normals(range).zip(sequence).all(|(word, expected)| word == expected)
    }

    /// The number of words before a first `,` or `:`, when somebody is addressed by name with them.
    pub(super) fn addressed(&self, most_words: usize) -> Option<usize> {
        let at = self.text.find([',', ':'])?;
        let count = self.words.iter().take_while(|word| word.end <= at).count();
        (1..=most_words).contains(&count).then_some(count).filter(|count| *count < self.words.len())
    }

    /// Whether a question mark follows the last word before `end`.
    fn is_question(&self, end: usize) -> bool {
        let Some(last) = end.checked_sub(1).and_then(|last| self.words.get(last)) else {
            return false;
        };
        let end = self.words.get(end).map_or(self.text.len(), |word| word.start);
        self.text[last.end..end].contains(['?', '？'])
    }

    /// Everything from word `start` to the end of the text, untouched but for white space around it
    /// and a colon before it.
    fn raw(&self, start: usize) -> &'a str {
        let start = start.checked_sub(1).and_then(|last| self.words.get(last)).map_or(0, |word| word.end);
        let raw = self.text[start..].trim();
        unfenced(raw.strip_prefix(':').unwrap_or(raw).trim_start())
    }
}

fn word_end(text: &str, start: usize) -> usize {
    let mut characters = text[start..].char_indices().peekable();
    while let Some((offset, character)) = characters.next() {
        let inner = matches!(character, '\'' | '’')
            && characters.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        if offset > 0 && !character.is_alphanumeric() && !inner {
            return start + offset;
        }
        if character == '$' {
            return start + 1;
        }
    }
    text.len()
}

/// A `$` counts as a word where it is a shell prompt, not where it is a price.
fn stands_alone(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back().is_none_or(char::is_whitespace);
    before && text[at + 1..].chars().next().is_some_and(char::is_whitespace)
}

fn normal(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '\'' | '’')).flat_map(char::to_lowercase).collect()
}

/// Takes away what joins a captured text to the words around it, never what belongs to it: the dash
/// of `-5 degrees` stays.
fn trim_separators(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let shorter = text.strip_prefix([':', ',', ';']).or_else(|| {
            let after = text.strip_prefix(['-', '–', '—', '.', '!', '?'])?;
            after.starts_with(char::is_whitespace).then_some(after)
        });
        match shorter {
            Some(shorter) => text = shorter.trim_start(),
            None => break,
        }
    }
    let text =
        text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | ':' | '-' | '–' | '—'));
    unquoted(text)
}

fn unquoted(text: &str) -> &str {
    for (open, close) in [('"', '"'), ('“', '”'), ('«', '»'), ('`', '`')] {
        let inner = text.strip_prefix(open).and_then(|inner| inner.strip_suffix(close));
        if let Some(inner) = inner.filter(|inner| !inner.contains([open, close]) && !inner.trim().is_empty())
        {
            return inner.trim();
        }
    }
    text
}

/// A command in back quotes, as chats write code; what follows them may only be courtesy.
fn unfenced(raw: &str) -> &str {
    for fence in ["```", "`"] {
        let Some((inside, after)) = raw.strip_prefix(fence).and_then(|inside| inside.split_once(fence))
        else {
            continue;
        };
        let courtesy = after
            .chars()
            .all(|c| c.is_alphabetic() || c.is_whitespace() || matches!(c, ',' | '.' | '!' | '?'));
        if !courtesy || after.split_whitespace().count() > MAX_COURTESY_WORDS || inside.trim().is_empty() {
            return raw;
        }
        // ```sh names the language on the line of the fence.
        let code = match inside.split_once('\n') {
            Some((language, code)) if LANGUAGES.contains(&language.trim()) => code,
            _ => inside,
        };
        return code.trim();
    }
    raw
}

/// `please`, `for me`, `thank you so much`.
const MAX_COURTESY_WORDS: usize = 4;

/// What chats write behind the opening fence of a shell command.
const LANGUAGES: [&str; 5] = ["sh", "bash", "shell", "console", "zsh"];

/// One line of the table, ready to match.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Element>);

#[derive(Debug)]
enum Element {
    /// One of these word sequences, or none of them if optional.
    Words { choices: Vec<Vec<String>>, optional: bool },
    /// `{rest}`: at least one word, captured as written.
    Rest,
    /// `{raw}`: everything to the end of the text, captured byte for byte.
    Raw,
    /// `{number}`.
    Number,
    /// `...`: any words, also none.
    Gap,
    /// `?`: a question mark follows the last word.
    Question,
}

/// What a pattern caught.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Caught<'a> {
    pub(super) text: &'a str,
    pub(super) number: Option<u64>,
}

impl Pattern {
    /// # Errors
    /// In words for the one who edits the table.
    pub(super) fn parse(source: &str) -> Result<Self, String> {
        let mut elements = Vec::new();
        let mut rest = source.trim();
        while !rest.is_empty() {
            let (element, after) =
                parse_element(rest).map_err(|reason| format!("pattern {source:?}: {reason}"))?;
            elements.push(element);
            rest = after.trim_start();
        }
        let open =
            elements.iter().filter(|e| matches!(e, Element::Rest | Element::Raw | Element::Gap)).count();
        if open > MAX_OPEN_ELEMENTS {
            return Err(format!("pattern {source:?}: more than {MAX_OPEN_ELEMENTS} open elements"));
        }
        if elements.iter().rev().skip(1).any(|element| matches!(element, Element::Raw | Element::Question)) {
            return Err(format!("pattern {source:?}: {{raw}} and ? stand only at the end"));
        }
        if elements.is_empty() {
            return Err("an empty pattern".to_owned());
        }
        Ok(Self(elements))
    }

    /// Matches the words of `range` as a whole.
    pub(super) fn catch<'a>(&self, words: &Words<'a>, range: Range<usize>) -> Option<Caught<'a>> {
        let ends_open = matches!(self.0.last(), Some(Element::Rest | Element::Raw | Element::Gap));
        if words.cut && range.end == words.words.len() && !ends_open {
            return None;
        }
        catch_elements(&self.0, words, range, Caught::default())
    }
}

fn parse_element(source: &str) -> Result<(Element, &str), String> {
    for (open, close, optional) in [('(', ')', false), ('[', ']', true)] {
        if let Some(inner) = source.strip_prefix(open) {
            let (choices, after) = inner.split_once(close).ok_or(format!("{open} without {close}"))?;
            let choices: Vec<Vec<String>> = choices.split('|').map(sequence).collect();
            if choices.iter().any(Vec::is_empty) {
                return Err("an empty choice".to_owned());
            }
            return Ok((Element::Words { choices, optional }, after));
        }
    }
    let (word, after) = source.split_once(char::is_whitespace).unwrap_or((source, ""));
    let element = match word {
        "{rest}" => Element::Rest,
        "{raw}" => Element::Raw,
        "{number}" => Element::Number,
        "..." => Element::Gap,
        "?" => Element::Question,
        _ if word.contains(['{', '}', '(', ')', '[', ']', '|', '?']) => {
            return Err(format!("{word:?} is no element"));
        }
        _ => Element::Words { choices: vec![sequence(word)], optional: false },
    };
    match &element {
        Element::Words { choices, .. } if choices.iter().any(|choice| choice.is_empty()) => {
            Err(format!("{word:?} holds no word"))
        }
        _ => Ok((element, after)),
    }
}

/// The words of a phrase as they are compared.
pub(super) fn sequence(phrase: &str) -> Vec<String> {
    Words::of(phrase.trim()).words.into_iter().map(|word| word.normal).chain(prompt_sign(phrase)).collect()
}

/// A lone `$` is a word only where white space follows, which a phrase has no room for.
fn prompt_sign(phrase: &str) -> Option<String> {
    (phrase.trim() == "$").then(|| "$".to_owned())
}

fn catch_elements<'a>(
    elements: &[Element],
    words: &Words<'a>,
    range: Range<usize>,
    caught: Caught<'a>,
) -> Option<Caught<'a>> {
    let Some((element, others)) = elements.split_first() else {
        return range.is_empty().then_some(caught);
    };
    match element {
        Element::Words { choices, optional } => choices
            .iter()
            .filter(|choice| words.begins_with(range.clone(), choice))
            .find_map(|choice| catch_elements(others, words, range.start + choice.len()..range.end, caught))
            .or_else(|| if *optional { catch_elements(others, words, range, caught) } else { None }),
        Element::Number => {
            let number = words.words.get(range.start).filter(|_| !range.is_empty())?.normal.parse().ok()?;
            let caught = Caught { number: Some(number), ..caught };
            catch_elements(others, words, range.start + 1..range.end, caught)
        }
        Element::Question => (range.is_empty() && words.is_question(range.end)).then_some(caught),
        Element::Raw => {
            let text = words.raw(range.start);
            (!range.is_empty() && !text.is_empty()).then_some(Caught { text, ..caught })
        }
        Element::Gap => (range.start..=range.end)
            .find_map(|start| catch_elements(others, words, start..range.end, caught)),
        Element::Rest => (range.start + 1..=range.end).find_map(|start| {
            let text = words.written(range.start..start);
            let caught = Caught { text, ..caught };
            if text.is_empty() { None } else { catch_elements(others, words, start..range.end, caught) }
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn caught<'a>(pattern: &str, text: &'a str) -> Option<&'a str> {
        let words = Words::of(text);
        Pattern::parse(pattern).expect(pattern).catch(&words, words.all()).map(|caught| caught.text)
    }

    #[test]
    fn patterns_match_whole_messages() {
        for (pattern, text, expected) in [
            ("remember {rest}", "Remember: \"tea\".", Some("\"tea\".")),
            ("remember {rest}", "remember “tea”", Some("tea")),
            ("remember {rest}", "remember", None),
            ("remember {rest}", "please remember tea", None),
            ("... remember ...", "please remember tea", Some("")),
            ("(a b|a) [c|d e] {rest}", "a b d e f", Some("f")),
            ("(a b|a) [c|d e] {rest}", "A, d. g", Some("d. g")),
            ("{rest} from {rest}", "x y from z", Some("z")),
            ("dont", "DON’T", Some("")),
            ("$ {raw}", "$  ls  -l $HOME ", Some("ls  -l $HOME")),
            ("$ {raw}", "$5 for lunch", None),
            ("run {raw}", "run: ```sh\nls\ndate\n```", Some("ls\ndate")),
            ("note {rest}", "note - .bashrc costs $5, -3 left -", Some(".bashrc costs $5, -3 left")),
            ("{rest} ?", "really? :)", Some("really? :)")),
            ("{rest} ?", "really.", None),
            ("worker {number}", "Worker:007", Some("")),
            ("worker {number}", "worker 99999999999999999999999", None),
        ] {
            assert_eq!(caught(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_long_text_is_caught_to_its_end() {
        let what = "more and more ".repeat(MAX_WORDS) + "the end.";
        assert_eq!(caught("remember {rest}", &format!("remember {what}")), Some(what.as_str()));
        assert_eq!(caught("remember {rest} end", &format!("remember {what}")), None);
    }
}
