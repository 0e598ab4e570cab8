//! The phrase table: what the responder understands and says, read from `phrases.toml`.

use std::ops::Range;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::pattern::{Caught, Pattern, Words, sequence};

const SOURCE: &str = include_str!("../../../prompts/en/offline/phrases.toml");

/// Polite phrases taken away from each end of a message.
const MAX_POLITE: usize = 8;

/// Words of a name that somebody is addressed by: `jarvis,` or `my bot:`.
const MAX_NAME_WORDS: usize = 2;

/// The table, parsed once.
///
/// # Errors
/// The embedded file is wrong, in words for the one who edits it; a test keeps that from shipping.
pub(super) fn table() -> Result<&'static Table, &'static str> {
    static TABLE: LazyLock<Result<Table, String>> = LazyLock::new(|| Table::parse(SOURCE));
    TABLE.as_ref().map_err(String::as_str)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    polite: Polite,
    intent: Vec<Intent>,
    /// For the tests alone.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
    unmatched: Unmatched,
    kind: Vec<KindRule>,
    pub(super) words: WordLists,
    pub(super) when: WhenWords,
    pub(super) channel: ChannelSentences,
    pub(super) branch: BranchSentences,
    pub(super) worker: WorkerSentences,
    pub(super) ingestion: IngestionSentences,
    pub(super) job: JobSentences,
    pub(super) other: OtherSentences,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Polite {
    before: Vec<Phrase>,
    after: Vec<Phrase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
struct Unmatched {
    examples: Vec<String>,
}

/// What an intent comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Does {
    Remember,
    Recall,
    List,
    Forget,
    Run,
    Route,
    /// One process, named or the only one.
    Cancel,
    /// Everything that runs.
    Stop,
    Status,
    Time,
    /// A reminder, if the message says when; else it is remembered.
    Remind,
    /// Which jobs report here.
    Reminders,
    /// Take back one of them.
    Unremind,
    /// The intent's own sentence.
    Say,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Intent {
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
    name: String,
    pub(super) does: Does,
    #[serde(default)]
    pub(super) says: String,
    #[serde(default)]
    whole: bool,
    patterns: Vec<Pattern>,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
    examples: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KindRule {
    pub(super) kind: String,
    patterns: Vec<Pattern>,
    pub(super) says: Option<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
    examples: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WordLists {
    pub(super) empty: Vec<String>,
    pub(super) everything: Vec<Phrase>,
    pub(super) refusals: Vec<String>,
    pub(super) finished: Vec<String>,
}

/// What times are made of, in lower case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhenWords {
    pub(super) remind: Vec<String>,
    pub(super) whom: Vec<String>,
    pub(super) joins: Vec<String>,
    pub(super) inside: Vec<String>,
    pub(super) at: Vec<String>,
    pub(super) on: Vec<String>,
    pub(super) every: Vec<String>,
    pub(super) daily: Vec<String>,
    pub(super) today: Vec<String>,
    pub(super) tomorrow: Vec<String>,
    pub(super) morning: Vec<String>,
    pub(super) workday: Vec<String>,
    pub(super) noon: Vec<String>,
    pub(super) midnight: Vec<String>,
    pub(super) am: Vec<String>,
    pub(super) pm: Vec<String>,
    pub(super) half: Vec<String>,
    pub(super) one: Vec<String>,
    pub(super) and: Vec<String>,
    /// From Sunday on.
    pub(super) weekdays: Vec<Vec<String>>,
    pub(super) units: UnitWords,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitWords {
    pub(super) second: Vec<String>,
    pub(super) minute: Vec<String>,
    pub(super) hour: Vec<String>,
    pub(super) day: Vec<String>,
    pub(super) week: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobSentences {
    pub(super) reminder: String,
    pub(super) offline: String,
    pub(super) failed: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChannelSentences {
    pub(super) reminded: String,
    pub(super) reminded_again: String,
    pub(super) not_reminded: String,
    pub(super) reminders: String,
    pub(super) no_reminders: String,
    pub(super) reminder_line: String,
    pub(super) reminder_off: String,
    pub(super) unreminded: String,
    pub(super) offline: String,
    pub(super) wordless: String,
    pub(super) time: String,
    pub(super) status: String,
    pub(super) status_empty: String,
    pub(super) nothing_runs: String,
    pub(super) which: String,
    pub(super) stopped: String,
    pub(super) not_stopped: String,
    pub(super) routed: String,
    pub(super) not_routed: String,
    pub(super) not_started: String,
    pub(super) no_tool: String,
    pub(super) too_many: String,
    pub(super) empty_result: String,
    pub(super) reply_failed: String,
    pub(super) skip_reason: String,
    pub(super) done_reason: String,
    pub(super) cancel_reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BranchSentences {
    pub(super) noted: String,
    pub(super) not_noted: String,
    pub(super) nothing_to_note: String,
    pub(super) known: String,
    pub(super) found_one: String,
    pub(super) found_many: String,
    pub(super) unsure: String,
    pub(super) line: String,
    pub(super) more: String,
    pub(super) unknown: String,
    pub(super) nothing_at_all: String,
    pub(super) not_searched: String,
    pub(super) forgotten: String,
    pub(super) forgotten_several: String,
    pub(super) not_found: String,
    pub(super) which: String,
    pub(super) vague: String,
    pub(super) not_forgotten: String,
    pub(super) no_model: String,
    pub(super) no_model_nothing: String,
    pub(super) delete_reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkerSentences {
    pub(super) ran: String,
    pub(super) failed: String,
    pub(super) output: String,
    pub(super) no_output: String,
    pub(super) cannot: String,
    pub(super) no_shell: String,
    pub(super) nothing: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IngestionSentences {
    pub(super) saved: String,
    pub(super) nothing: String,
    pub(super) cannot: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OtherSentences {
    pub(super) no_tools: String,
    pub(super) no_tool: String,
}

/// Words that are compared one by one.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct Phrase(Vec<String>);

impl From<String> for Phrase {
    fn from(text: String) -> Self {
        Self(sequence(&text))
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Pattern::parse(&source).map_err(serde::de::Error::custom)
    }
}

/// A message understood.
#[derive(Debug)]
pub(super) struct Heard<'t, 'a> {
    pub(super) intent: &'t Intent,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the table"))]
    pub(super) pattern: usize,
    pub(super) caught: Caught<'a>,
}

impl Table {
    fn parse(source: &str) -> Result<Self, String> {
        let document = DeTable::parse(source).map_err(|error| error.to_string())?;
        serde_json::from_value(table_value(document.get_ref())?).map_err(|error| error.to_string())
    }

    /// The intent of a message, none when no pattern matches.
    pub(super) fn hear<'a>(&self, text: &'a str) -> Option<Heard<'_, 'a>> {
        let words = Words::of(text);
        let without_name = words.addressed(MAX_NAME_WORDS).map(|name| name..words.all().end);
        self.hear_words(&words, &self.polite.ranges(&words))
            .or_else(|| self.hear_words(&words, &[without_name?]))
    }

    fn hear_words<'a>(&self, words: &Words<'a>, ranges: &[Range<usize>]) -> Option<Heard<'_, 'a>> {
        let all_patterns = self.intent.iter().flat_map(|intent| {
            intent.patterns.iter().enumerate().map(move |(index, pattern)| (intent, index, pattern))
        });
        all_patterns.flat_map(|pattern| ranges.iter().map(move |range| (pattern, range))).find_map(
            |((intent, index, pattern), range)| {
                let mut caught = pattern.catch(words, range.clone())?;
                if intent.whole {
                    caught.text = words.written(range.clone());
                }
                if intent.does == Does::Remember {
                    caught.text = without_question(caught.text);
                }
                Some(Heard { intent, pattern: index, caught })
            },
        )
    }

    /// Which kind of memory a text is; none stands for a plain fact.
    pub(super) fn kind_of(&self, text: &str) -> Option<&KindRule> {
        let words = Words::of(text);
        self.kind.iter().find(|rule| rule.patterns.iter().any(|p| p.catch(&words, words.all()).is_some()))
    }
}

fn table_value(table: &DeTable<'_>) -> Result<Value, String> {
    let entries =
        table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), value_of(value.get_ref())?)));
    Ok(Value::Object(entries.collect::<Result<_, String>>()?))
}

/// The few types that the table uses.
fn value_of(value: &DeValue<'_>) -> Result<Value, String> {
    match value {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(flag) => Ok(Value::Bool(*flag)),
        DeValue::Table(table) => table_value(table),
        DeValue::Array(values) => {
            values.iter().map(|value| value_of(value.get_ref())).collect::<Result<_, _>>().map(Value::Array)
        }
        _ => Err(format!("a {} is not used in this table", value.type_str())),
    }
}

impl Polite {
    /// What remains of a message, most politeness taken away first, the message itself last.
    fn ranges(&self, words: &Words<'_>) -> Vec<Range<usize>> {
        let all = words.all();
        let mut starts = vec![all.start];
        let mut ends = vec![all.end];
        while let Some(start) = starts.last().copied().filter(|_| starts.len() <= MAX_POLITE) {
            let longest = self.before.iter().filter(|phrase| words.begins_with(start..all.end, &phrase.0));
            match longest.map(|phrase| phrase.0.len()).max() {
                Some(length) => starts.push(start + length),
                None => break,
            }
        }
        while let Some(end) = ends.last().copied().filter(|_| ends.len() <= MAX_POLITE && !words.is_cut()) {
            let longest = self.after.iter().filter(|phrase| {
                let start = end.checked_sub(phrase.0.len());
                start.is_some_and(|start| words.begins_with(start..end, &phrase.0))
            });
            match longest.map(|phrase| phrase.0.len()).max() {
                Some(length) => ends.push(end - length),
                None => break,
            }
        }
        let pairs = starts.iter().rev().flat_map(|start| ends.iter().rev().map(move |end| *start..*end));
        pairs.filter(|range| !range.is_empty()).collect()
    }
}

impl Phrase {
    pub(super) fn is(&self, words: &Words<'_>) -> bool {
        words.normals(words.all()).eq(self.0.iter().map(String::as_str))
    }
}

/// `my name is Bob?!` said as an order.
fn without_question(text: &str) -> &str {
    let stem = text.trim_end_matches(['?', '!', '？']);
    if text[stem.len()..].contains(['?', '？']) { stem } else { text }
}

/// A sentence with its `{names}` replaced; what is put in is not looked at again.
pub(super) fn fill(sentence: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let known = after.split_once('}').and_then(|(name, after)| {
            let value = values.iter().find(|(candidate, _)| *candidate == name)?;
            Some((value.1, after))
        });
        match known {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn the_table() -> &'static Table {
        table().unwrap_or_else(|reason| panic!("{reason}"))
    }

    #[test]
    fn every_example_is_understood_as_its_intent() {
        let mut wrong = Vec::new();
        for intent in &the_table().intent {
            for (text, caught) in &intent.examples {
                let heard =
                    the_table().hear(text).map(|heard| (heard.intent.name.clone(), heard.caught.text));
                if heard != Some((intent.name.clone(), caught.as_str())) {
                    wrong.push(format!("{text:?}: {heard:?} instead of {:?} {caught:?}", intent.name));
                }
            }
        }
        for text in &the_table().unmatched.examples {
            if let Some(heard) = the_table().hear(text) {
                wrong.push(format!("{text:?}: {:?} instead of nothing", heard.intent.name));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// A pattern that wins none of its own intent's examples is hidden by an earlier one, or useless.
    #[test]
    fn every_pattern_wins_an_example() {
        let mut losing = Vec::new();
        for intent in &the_table().intent {
            let winners: BTreeSet<usize> = intent
                .examples
                .iter()
                .filter_map(|(text, _)| the_table().hear(text))
                .filter(|heard| heard.intent.name == intent.name)
                .map(|heard| heard.pattern)
                .collect();
            let all = 0..intent.patterns.len();
            losing.extend(
                all.filter(|index| !winners.contains(index)).map(|index| format!("{} #{index}", intent.name)),
            );
        }
        assert!(losing.is_empty(), "{losing:?}");
    }

    #[test]
    fn intents_have_their_own_names_and_something_to_say() {
        let mut names = BTreeSet::new();
        for intent in &the_table().intent {
            assert!(names.insert(&intent.name), "{} stands twice", intent.name);
            assert_eq!(intent.does == Does::Say, !intent.says.is_empty(), "{}", intent.name);
        }
    }

    #[test]
    fn every_kind_rule_names_its_examples() {
        for (index, rule) in the_table().kind.iter().enumerate() {
            for text in &rule.examples {
                let found = the_table().kind_of(text);
                let same = match found {
                    Some(found) => std::ptr::eq(found, rule),
                    None => rule.patterns.is_empty(),
                };
                assert!(same, "{text:?} is not found by rule {index} ({}) but {found:?}", rule.kind);
            }
            assert!(!rule.examples.is_empty(), "rule {index} has no example");
        }
    }

    #[test]
    fn a_wrong_table_is_refused_with_its_reason() {
        for (from, to, reason) in [
            ("\"$ {raw}\"", "\"{raw} $\"", "only at the end"),
            ("\"$ {raw}\"", "\"... {rest} ...\"", "open elements"),
            ("\"$ {raw}\"", "\"(a|b\"", "without )"),
            ("\"$ {raw}\"", "\"{what}\"", "is no element"),
            ("does = \"run\"", "does = \"fly\"", "fly"),
            ("no_tools =", "no_tolls =", "no_tolls"),
        ] {
            assert!(SOURCE.contains(from), "{from}");
            let error = Table::parse(&SOURCE.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        assert_eq!(fill("{a} {b} {c} {", &[("a", "{b}"), ("b", "2")]), "{b} 2 {c} {");
    }
}
