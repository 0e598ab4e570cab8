//! Identifiers as types, so that a conversation cannot be passed where an agent is meant.

use std::fmt;
use std::sync::Arc;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, formatter)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

text_id! {
    /// One agent of the daemon, as written in `[[agents]] id`.
    AgentId
}
text_id! {
    /// One conversation, such as `irc:libera:#pi`, `webhook:home` or `portal:chat:main`.
    ConversationId
}
text_id! {
    /// One adapter instance, such as `irc:libera`, `webhook` or `portal`.
    InstanceId
}

impl InstanceId {
    /// The part before the first colon: `irc` of `irc:libera`.
    pub fn platform(&self) -> &str {
        self.as_str().split(':').next().unwrap_or_default()
    }
}

macro_rules! row_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

row_id! {
    /// Row of `inbox`; rises with every committed message of one agent's database.
    InboxId
}
row_id! {
    /// Row of `outbox`; rises in the order in which answers were committed.
    OutboxId
}

/// The kinds of LLM process that exist today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessKind {
    Channel,
    Branch,
    Worker,
    /// Summarises what leaves the window of a conversation, or takes memories from it.
    Compactor,
    /// Reads one chunk of a file.
    Ingestion,
    /// Work of another agent: no process of ours, but its result comes back like that of one.
    Delegation,
    /// Looks after the agent as a whole: bulletin, memories, and a conversation with the operator.
    Cortex,
}

impl ProcessKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessKind::Channel => "channel",
            ProcessKind::Branch => "branch",
            ProcessKind::Worker => "worker",
            ProcessKind::Compactor => "compactor",
            ProcessKind::Ingestion => "ingestion",
            ProcessKind::Delegation => "delegation",
            ProcessKind::Cortex => "cortex",
        }
    }

    /// Works for the conversation by its order; its model hears of it and may stop it.
    pub fn is_told_of(self) -> bool {
        matches!(self, ProcessKind::Branch | ProcessKind::Worker)
    }
}

/// A process of one agent: its kind and the number it got from the hub, never reused within one
/// database. Written `worker:7`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    pub kind: ProcessKind,
    pub number: u64,
}

impl ProcessId {
    pub fn new(kind: ProcessKind, number: u64) -> Self {
        Self { kind, number }
    }

    /// Reads what a model or a person wrote: `worker:7`, `7` (with the kind given), `#7`.
    pub fn parse(kind: ProcessKind, text: &str) -> Option<Self> {
        let digits = text.trim().trim_start_matches(kind.as_str()).trim_start_matches([':', '#', ' ']);
        digits.parse().ok().map(|number| Self { kind, number })
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind.as_str(), self.number)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
