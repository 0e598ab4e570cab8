//! What a memory is: its type, where it came from, how memories are tied to each other, and the
//! question that finds them again.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MemoryError;
use crate::clock::Timestamp;
use crate::id::{ConversationId, ProcessId};
use crate::text;

/// Longest content of one memory, in bytes, after trimming.
pub const CONTENT_BYTES_MAX: usize = 50_000;
/// Most hits that one search returns.
pub const LIMIT_MAX: usize = 50;
/// Hits that a search returns when it does not say.
pub const LIMIT_DEFAULT: usize = 10;
/// Most associations that one save may bring along; more is a model that lost its way.
pub const ASSOCIATIONS_MAX: usize = 32;
/// Weight of an association that does not say.
pub const WEIGHT_DEFAULT: f64 = 0.5;
/// Longest provenance text that is stored, in bytes.
const SOURCE_BYTES_MAX: usize = 1_000;

/// An enum that is stored and shown as one word.
macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(inline)]
        pub enum $name { $($variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = MemoryError;

            fn from_str(text: &str) -> Result<Self, MemoryError> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                    MemoryError::Invalid(format!(
                        "{text:?} is no {}; it is one of {}", $what, known.join(", ")
                    ))
                })
            }
        }
    };
}

word_enum! {
    /// What kind of knowledge a memory is.
    MemoryType, "memory type" {
        Identity = "identity",
        Goal = "goal",
        Decision = "decision",
        Todo = "todo",
        Preference = "preference",
        Fact = "fact",
        Event = "event",
        Observation = "observation",
    }
}

impl MemoryType {
    /// Importance of a memory whose author did not give one.
    pub fn default_importance(self) -> f64 {
        match self {
            MemoryType::Identity => 1.0,
            MemoryType::Goal => 0.9,
            MemoryType::Decision | MemoryType::Todo => 0.8,
            MemoryType::Preference => 0.7,
            MemoryType::Fact => 0.6,
            MemoryType::Event => 0.4,
            MemoryType::Observation => 0.3,
        }
    }
}

word_enum! {
    /// How one memory bears on another.
    RelationType, "relation" {
        RelatedTo = "related_to",
        Updates = "updates",
        Contradicts = "contradicts",
        CausedBy = "caused_by",
        ResultOf = "result_of",
        PartOf = "part_of",
    }
}

word_enum! {
    /// Who or what a memory came from; decides how far it can be trusted.
    Who, "kind of source" {
        User = "user",
        Agent = "agent",
        Tool = "tool",
        File = "file",
        Web = "web",
        Other = "other",
    }
}

/// Where a memory came from. Stored as one text, `who:reference | label`; a text of another form
/// (an import) is kept as it is, as [`Who::Other`] with that reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub who: Who,
    /// The message, run, file or page: `branch:12`, `https://…`.
    pub reference: Option<String>,
    /// For people: who said it, the page's title.
    pub label: Option<String>,
}

impl Source {
    const LABEL: &'static str = " | ";

    pub fn new(who: Who, reference: impl Into<String>) -> Self {
        Self { who, reference: Some(reference.into()), label: None }
    }

    /// What a process saved, with what it says about the source. A claim may lower the trust (it came
    /// from a page, a file, a tool), never raise it to that of the user's own word; nor can it be the agent's
    /// own when the process has read what others wrote (`outside`).
    pub fn claimed(process: ProcessId, claim: Option<&str>, outside: bool) -> Self {
        let claim = claim.map(str::trim).filter(|claim| !claim.is_empty());
        let who = match claim.map(|claim| Self::parse(claim).who) {
            Some(lower @ (Who::Tool | Who::File | Who::Web)) => lower,
            _ if outside => Who::Tool,
            _ => Who::Agent,
        };
        Self { who, reference: Some(process.to_string()), label: claim.map(str::to_owned) }
    }

    /// Never fails: any text is a source.
    pub fn parse(text: &str) -> Self {
        let (head, label) = match text.split_once(Self::LABEL) {
            Some((head, label)) => (head, Some(label.to_owned())),
            None => (text, None),
        };
        let (word, reference) = match head.split_once(':') {
            Some((word, reference)) => (word, Some(reference.to_owned())),
            None => (head, None),
        };
        match word.parse() {
            Ok(Who::Other) | Err(_) => Self {
                who: Who::Other,
                reference: Some(head.to_owned()).filter(|head| !head.is_empty()),
                label,
            },
            Ok(who) => Self { who, reference, label },
        }
    }

    /// The part worth finding a memory by: names and titles, and the address of a page or file, but
    /// not the numbers of runs and messages.
    pub(super) fn searchable(&self) -> impl Iterator<Item = &str> {
        let reference = match self.who {
            // Behind the name of a file: which content, which part of it.
            Who::File => self.reference.as_deref().and_then(|reference| reference.split('#').next()),
            Who::Web => self.reference.as_deref(),
            _ => None,
        };
        [self.label.as_deref(), reference].into_iter().flatten()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.who, &self.reference) {
            (Who::Other, reference) => formatter.write_str(reference.as_deref().unwrap_or_default())?,
            (who, Some(reference)) => write!(formatter, "{who}:{reference}")?,
            (who, None) => formatter.write_str(who.as_str())?,
        }
        match &self.label {
            Some(label) => write!(formatter, "{}{label}", Self::LABEL),
            None => Ok(()),
        }
    }
}

/// The process that uses a memory tool, for provenance.
#[derive(Debug, Clone)]
pub struct Origin {
    pub conversation: ConversationId,
    pub process: ProcessId,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    pub id: String,
    pub content: String,
    pub memory_type: MemoryType,
    /// From 0 to 1.
    pub importance: f64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub last_accessed_at: Timestamp,
    pub access_count: u64,
    pub source: Option<Source>,
    pub channel_id: Option<String>,
    pub forgotten: bool,
    /// Rises with every change of what is stored; being read is no change.
    pub change_seq: i64,
}

impl Memory {
    /// The word of a person or of the agent itself, not read from a file, a page or a command's output. An
    /// import keeps the sources that it was given; what names none was the operator's act.
    pub fn is_trusted(&self) -> bool {
        self.source.as_ref().is_none_or(|source| matches!(source.who, Who::User | Who::Agent | Who::Other))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Association {
    pub source_id: String,
    pub target_id: String,
    pub relation_type: RelationType,
    pub weight: f64,
    pub created_at: Timestamp,
}

/// What is to be remembered.
#[derive(Debug, Clone)]
pub struct NewMemory {
    pub content: String,
    pub memory_type: MemoryType,
    /// The type's default when absent.
    pub importance: Option<f64>,
    pub source: Option<Source>,
    pub channel_id: Option<String>,
    /// When it happened, for imports; now when absent.
    pub created_at: Option<Timestamp>,
    pub associations: Vec<NewAssociation>,
}

impl NewMemory {
    pub fn new(memory_type: MemoryType, content: impl Into<String>) -> Self {
        Self {
            content: content.into(),
            memory_type,
            importance: None,
            source: None,
            channel_id: None,
            created_at: None,
            associations: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct NewAssociation {
    pub target_id: String,
    pub relation_type: RelationType,
    pub weight: f64,
}

word_enum! {
    /// How a search chooses.
    Mode, "search mode" {
        Hybrid = "hybrid",
        Recent = "recent",
        Important = "important",
        Typed = "typed",
    }
}

word_enum! {
    /// Order of the modes that do not rank by the words of the query.
    Sort, "order" {
        Recent = "recent",
        Importance = "importance",
        MostAccessed = "most_accessed",
    }
}

#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// Plain words; nothing in it is syntax. Needed by [`Mode::Hybrid`], unused by the others.
    pub text: Option<String>,
    pub mode: Mode,
    /// Only memories of this type, in every mode; needed by [`Mode::Typed`].
    pub memory_type: Option<MemoryType>,
    /// The mode's own order when absent: most important first for [`Mode::Important`], else newest.
    pub sort: Option<Sort>,
    /// 1 to [`LIMIT_MAX`].
    pub limit: usize,
    /// Parts of the hybrid search; all of them but for measurements.
    pub parts: Parts,
}

/// What the hybrid search is made of. Measurements leave parts out; nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    pub words: bool,
    pub meaning: bool,
    /// Lists are joined by the places in them and not by their scores.
    pub by_rank: bool,
    pub locality: bool,
    pub second_pass: bool,
    pub dates: bool,
    pub graph: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            words: true,
            meaning: true,
            by_rank: false,
            locality: true,
            second_pass: true,
            dates: true,
            graph: true,
        }
    }
}

impl FromStr for Parts {
    type Err = MemoryError;

    /// A list such as `words,meaning,locality`.
    fn from_str(text: &str) -> Result<Self, MemoryError> {
        let mut parts = Self {
            words: false,
            meaning: false,
            by_rank: false,
            locality: false,
            second_pass: false,
            dates: false,
            graph: false,
        };
        for word in text.split(',').map(str::trim) {
            let part = match word {
                "words" => &mut parts.words,
                "meaning" => &mut parts.meaning,
                "by_rank" => &mut parts.by_rank,
                "locality" => &mut parts.locality,
                "second_pass" => &mut parts.second_pass,
                "dates" => &mut parts.dates,
                "graph" => &mut parts.graph,
                _ => return Err(MemoryError::Invalid(format!("{word:?} is no part of the search"))),
            };
            *part = true;
        }
        Ok(parts)
    }
}

impl SearchQuery {
    pub fn hybrid(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::of(Mode::Hybrid) }
    }

    pub fn of(mode: Mode) -> Self {
        Self {
            text: None,
            mode,
            memory_type: None,
            sort: None,
            limit: LIMIT_DEFAULT,
            parts: Parts::default(),
        }
    }
}

/// One memory found.
#[derive(Debug, Clone)]
pub struct Hit {
    pub memory: Memory,
    /// Comparable within one answer. In hybrid mode about 1 when every word of the query is there,
    /// a little more when words repeat; 0 for a fallback.
    pub score: f64,
    /// For the operator: which words, which order.
    pub why: String,
}

/// The memory as it will be stored, still without a `change_seq`.
pub(super) fn checked(new: NewMemory, now: Timestamp) -> Result<(Memory, Vec<NewAssociation>), MemoryError> {
    let invalid = |reason: String| Err(MemoryError::Invalid(reason));
    let content = new.content.trim();
    if content.is_empty() {
        return invalid("a memory needs a content".to_owned());
    }
    if content.len() > CONTENT_BYTES_MAX {
        return invalid(format!("the content has {} bytes, more than {CONTENT_BYTES_MAX}", content.len()));
    }
    let importance = new.importance.unwrap_or_else(|| new.memory_type.default_importance());
    if !(0.0..=1.0).contains(&importance) {
        return invalid(format!("importance goes from 0 to 1, {importance} is outside"));
    }
    if new.associations.len() > ASSOCIATIONS_MAX {
        return invalid(format!("more than {ASSOCIATIONS_MAX} associations"));
    }
    for association in &new.associations {
        if !(0.0..=1.0).contains(&association.weight) {
            return invalid(format!("a weight goes from 0 to 1, {} is outside", association.weight));
        }
    }
    let created_at = new.created_at.unwrap_or(now);
    let source = new.source.map(|source| {
        let text = source.to_string();
        Source::parse(&text::shorten(&text, SOURCE_BYTES_MAX))
    });
    let memory = Memory {
        id: super::store::new_id(created_at),
        content: content.to_owned(),
        memory_type: new.memory_type,
        importance,
        created_at,
        updated_at: now,
        last_accessed_at: now,
        access_count: 0,
        source,
        channel_id: new.channel_id,
        forgotten: false,
        change_seq: 0,
    };
    Ok((memory, new.associations))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::id::ProcessKind;

    #[test]
    fn a_source_survives_its_text_form() {
        let texts = [
            "user",
            "user:irc:libera:#pi/17 | Alice",
            "agent:branch:12",
            "web:https://example.org/a | A page: about | pipes",
            "D1:3",
            "some old note",
            "other",
            "other:thing",
            "",
            ":",
            "USER",
        ];
        for text in texts {
            assert_eq!(Source::parse(text).to_string(), text);
            assert_eq!(Source::parse(&Source::parse(text).to_string()), Source::parse(text));
        }
        assert_eq!(Source::parse("web:https://example.org").who, Who::Web);
        assert_eq!(Source::parse("D1:3").who, Who::Other);
    }

    #[test]
    fn a_claim_lowers_trust_and_never_raises_it() {
        let process = ProcessId::new(ProcessKind::Branch, 7);
        let cases = [
            (None, "agent:branch:7"),
            (Some("user"), "agent:branch:7 | user"),
            (Some("  Alice "), "agent:branch:7 | Alice"),
            (Some("web:https://example.org"), "web:branch:7 | web:https://example.org"),
            (Some("file: notes.md"), "file:branch:7 | file: notes.md"),
            (Some("   "), "agent:branch:7"),
        ];
        for (claim, expected) in cases {
            assert_eq!(Source::claimed(process, claim, false).to_string(), expected);
        }
        assert_eq!(Source::claimed(process, Some("user"), true).to_string(), "tool:branch:7 | user");
    }

    #[test]
    fn words_of_the_enums_are_those_of_their_json() {
        for memory_type in MemoryType::ALL {
            assert_eq!(serde_json::to_value(memory_type).unwrap(), memory_type.as_str());
            assert_eq!(memory_type.as_str().parse::<MemoryType>().unwrap(), *memory_type);
        }
        for relation in RelationType::ALL {
            assert_eq!(serde_json::to_value(relation).unwrap(), relation.as_str());
        }
        let error = "thing".parse::<MemoryType>().unwrap_err().to_string();
        assert!(error.contains("identity, goal, decision"), "{error}");
    }
}
