//! From text to index words: the same steps for a stored memory, for one that is not in the index yet
//! and for a query, so that the three agree.
//!
//! Lower case, no accents, no stop words, the stems of one language; a character of a script without word gaps is
//! a word of its own.

use std::borrow::Cow;
use std::collections::HashMap;

use tantivy::tokenizer::{
    AsciiFoldingFilter, Language as StemLanguage, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer,
    StopWordFilter, TextAnalyzer,
};

use super::record::{Memory, Source};
use crate::clock::Timestamp;
use crate::config::Language;
use crate::text;

/// Part of the index's format: changing what this file does needs a new number, which rebuilds.
const VERSION: u32 = 2;

/// Longest word that is indexed, in bytes: a SHA-256 in hexadecimal still is.
const WORD_BYTES_MAX: usize = 72;
/// What is read of a query, in bytes.
const QUERY_BYTES_MAX: usize = 8_000;
/// Different words of a query that are searched, the first ones; each costs one list of postings.
const QUERY_WORDS_MAX: usize = 64;

/// Words that say how and not what. "may" and "will" stay: a month and a name.
const STOP_WORDS: &str = "a about all am an and any are aren as at be because been but by can could couldn d did \
    didn do does doesn doing don for from had has hasn have haven having he her hers herself him himself his \
    how i if in into is isn it its itself just ll m me my myself no nor not of on or our ours ourselves re s \
    she should shouldn so such t than that the their theirs them themselves then there these they this those \
    to too ve very was wasn we were weren what when where which while who whom whose why with won would \
    wouldn you your yours yourself yourselves";

#[derive(Clone)]
pub(super) struct Analyzer {
    words: TextAnalyzer,
    version: u32,
}

/// The words of a text and how often each occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) counts: HashMap<String, u32>,
    pub(super) total: u32,
}

/// One word of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryWord {
    /// As it stands in the index.
    pub(super) stem: String,
    /// As it was asked.
    pub(super) asked: String,
}

impl Analyzer {
    pub(super) fn new(language: Language) -> Self {
        let stems = language_of(language);
        let stop_words = match stems {
            Some(StemLanguage::English) => {
                Some(StopWordFilter::remove(STOP_WORDS.split_whitespace().map(str::to_owned)))
            }
            // Those that somebody has made a list for.
            other => other.and_then(StopWordFilter::new),
        };
        let mut builder = TextAnalyzer::builder(SimpleTokenizer::default())
            .filter(RemoveLongFilter::limit(WORD_BYTES_MAX))
            .filter(LowerCaser)
            .dynamic();
        if let Some(stop_words) = stop_words {
            // Before the accents go: the lists have them.
            builder = builder.filter_dynamic(stop_words);
        }
        builder = builder.filter_dynamic(AsciiFoldingFilter);
        if let Some(language) = stems {
            builder = builder.filter_dynamic(Stemmer::new(language));
        }
        let place = Language::ALL.iter().position(|(_, known)| *known == language).unwrap_or_default();
        Self { words: builder.build(), version: VERSION * 100 + place as u32 }
    }

    /// Two analyzers with the same version make the same words.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// For tantivy, which takes what [`indexed_text`] returns through the same steps.
    pub(super) fn tokenizer(&self) -> TextAnalyzer {
        self.words.clone()
    }

    /// The words of what [`indexed_text`] returned.
    pub(super) fn words(&self, indexed: &str) -> Words {
        let mut analyzer = self.words.clone();
        let mut stream = analyzer.token_stream(indexed);
        let mut words = Words::default();
        while let Some(token) = stream.next() {
            words.total += 1;
            match words.counts.get_mut(&token.text) {
                Some(count) => *count += 1,
                None => {
                    words.counts.insert(token.text.clone(), 1);
                }
            }
        }
        words
    }

    /// The words to search for, each once; none when the text has only stop words or signs.
    pub(super) fn query_words(&self, query: &str) -> Vec<QueryWord> {
        let query = spread(text::prefix(query, QUERY_BYTES_MAX));
        let mut analyzer = self.words.clone();
        let mut stream = analyzer.token_stream(&query);
        let mut words: Vec<QueryWord> = Vec::new();
        while words.len() < QUERY_WORDS_MAX
            && let Some(token) = stream.next()
        {
            if !words.iter().any(|word| word.stem == token.text) {
                let asked = query[token.offset_from..token.offset_to].to_owned();
                words.push(QueryWord { stem: token.text.clone(), asked });
            }
        }
        words
    }
}

fn language_of(language: Language) -> Option<StemLanguage> {
    Some(match language {
        Language::Arabic => StemLanguage::Arabic,
        Language::Danish => StemLanguage::Danish,
        Language::Dutch => StemLanguage::Dutch,
        Language::English => StemLanguage::English,
        Language::Finnish => StemLanguage::Finnish,
        Language::French => StemLanguage::French,
        Language::German => StemLanguage::German,
        Language::Greek => StemLanguage::Greek,
        Language::Hungarian => StemLanguage::Hungarian,
        Language::Italian => StemLanguage::Italian,
        Language::Norwegian => StemLanguage::Norwegian,
        Language::Portuguese => StemLanguage::Portuguese,
        Language::Romanian => StemLanguage::Romanian,
        Language::Russian => StemLanguage::Russian,
        Language::Spanish => StemLanguage::Spanish,
        Language::Swedish => StemLanguage::Swedish,
        Language::Tamil => StemLanguage::Tamil,
        Language::Turkish => StemLanguage::Turkish,
        Language::None => return None,
    })
}

/// Everything of a memory that it can be found by: content, who said it, the day.
pub(super) fn indexed_text(memory: &Memory) -> String {
    let mut indexed = spread(&memory.content).into_owned();
    for part in memory.source.iter().flat_map(Source::searchable) {
        indexed.push('\n');
        indexed.push_str(&spread(part));
    }
    if let Some(day) = day_words(memory.created_at) {
        indexed.push('\n');
        indexed.push_str(&day);
    }
    indexed
}

/// `8 May 2023` (UTC), so that "in May 2023" weighs in.
fn day_words(time: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(time.0).ok()?;
    Some(time.strftime("%-d %B %Y").to_string())
}

/// Puts blanks around each character of a script that is written without them; otherwise a sentence
/// would be one word.
fn spread(text: &str) -> Cow<'_, str> {
    if !text.chars().any(stands_alone) {
        return Cow::Borrowed(text);
    }
    let mut spread = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if stands_alone(character) {
            spread.extend([' ', character, ' ']);
        } else {
            spread.push(character);
        }
    }
    Cow::Owned(spread)
}

/// Chinese characters, Japanese kana, Korean syllables.
fn stands_alone(character: char) -> bool {
    matches!(u32::from(character),
        0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF
        | 0x20000..=0x323AF)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn stems(text: &str) -> Vec<String> {
        Analyzer::new(Language::English).query_words(text).into_iter().map(|word| word.stem).collect()
    }

    #[test]
    fn a_query_is_words_and_never_syntax() {
        let cases: &[(&str, &[&str])] = &[
            ("Running runs", &["run"]),
            ("content:\"a b\" AND NOT (c* OR d~2)", &["content", "b", "c", "2"]),
            ("who am I?", &[]),
            ("café CAFE", &["cafe"]),
            ("+-!(){}[]^\"~*?:\\/ && ||", &[]),
            ("東京 in May", &["東", "京", "may"]),
            ("Caroline's don't", &["carolin"]),
            ("\0a\u{0}b\u{202e}", &["b"]),
            ("", &[]),
        ];
        for (query, expected) in cases {
            assert_eq!(stems(query), *expected, "{query:?}");
        }
    }

    #[test]
    fn a_query_is_cut_to_its_limits() {
        let many: String = (0..10_000).map(|n| format!("word{n} ")).collect();
        assert_eq!(stems(&many).len(), QUERY_WORDS_MAX);
        assert!(stems(&"漢".repeat(1_000_000)).len() == 1);
        assert!(stems(&"x".repeat(1_000_000)).is_empty(), "longer than any word");
    }

    #[test]
    fn the_asked_form_is_kept_for_the_explanation() {
        let words = Analyzer::new(Language::English).query_words("Cafés nearby");
        assert_eq!(words[0].asked, "Cafés");
    }
}
