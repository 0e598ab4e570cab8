//! One thing that happened: its kind, where, how important, and what it came from.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::id::{ConversationId, InstanceId, ProcessId};
use crate::text;

/// Longest text of an event that is stored, in bytes; a prompt shows less.
pub const TEXT_BYTES_MAX: usize = 500;
/// Longest name of a task in front of what came of it, in bytes.
const TASK_BYTES_MAX: usize = 120;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident, $word:literal, $importance:literal;)+) => {
        /// What can happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant),+ }

        impl EventKind {
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant),+];

            /// As it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(EventKind::$variant => $word),+ }
            }

            /// Of an event that does not say, from 0 to 1. Below a half: what the event that follows
            /// it says too, or what was due anyway.
            pub fn importance(self) -> f64 {
                match self { $(EventKind::$variant => $importance),+ }
            }
        }
    };
}

kinds! {
    BranchCompleted, "branch_completed", 0.5;
    WorkerSpawned, "worker_spawned", 0.3;
    WorkerCompleted, "worker_completed", 0.6;
    CronExecuted, "cron_executed", 0.4;
    MemorySaved, "memory_saved", 0.5;
    Decision, "decision", 0.8;
    UserCorrection, "user_correction", 0.8;
    DecisionRevised, "decision_revised", 0.8;
    DeadlineSet, "deadline_set", 0.9;
    BlockedOn, "blocked_on", 0.8;
    Constraint, "constraint", 0.8;
    Outcome, "outcome", 0.7;
    /// Something failed, or a crash cut it off.
    Error, "error", 0.7;
    TaskUpdate, "task_update", 0.5;
    AgentMessage, "agent_message", 0.5;
    System, "system", 0.3;
    /// Reserved.
    MemoryPromoted, "memory_promoted", 0.3;
    /// Reserved.
    MemoryDemoted, "memory_demoted", 0.3;
}

impl fmt::Display for EventKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A word that is no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of event")]
pub struct UnknownKind(String);

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let found = Self::ALL.iter().copied().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: i64,
    pub kind: EventKind,
    pub conversation: Option<ConversationId>,
    /// That conversation is with one person.
    pub direct: bool,
    pub text: String,
    /// From 0 to 1.
    pub importance: f64,
    /// The process, such as `branch:3`.
    pub run: Option<String>,
    /// Platform id of the message that asked for it.
    pub message: Option<String>,
    pub created_at: Timestamp,
}

/// An event to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub kind: EventKind,
    pub conversation: Option<ConversationId>,
    pub direct: bool,
    /// Stored on one line, without control characters, at most [`TEXT_BYTES_MAX`] of it.
    pub text: String,
    /// The kind's own when absent.
    pub importance: Option<f64>,
    pub run: Option<ProcessId>,
    pub message: Option<String>,
    pub asked: Asked,
}

/// The messages that asked for what happened. It is about a person when that person has written all of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// Where they came in; that of the conversation when absent.
    pub instance: Option<InstanceId>,
    /// Their platform ids.
    pub messages: Vec<String>,
}

impl NewEvent {
    pub fn new(kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            conversation: None,
            direct: false,
            text: text.into(),
            importance: None,
            run: None,
            message: None,
            asked: Asked::default(),
        }
    }

    /// What came of a task, as `task: words`.
    pub fn of_task(kind: EventKind, task: &str, words: &str) -> Self {
        Self::new(kind, format!("{}: {words}", text::one_line(task, TASK_BYTES_MAX)))
    }

    /// Writes the event in the transaction of what it tells of: both are stored, or neither.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn insert(&self, connection: &Connection, now: Timestamp) -> Result<(), DbError> {
        super::store::insert(connection, self, now)
    }

    /// As [`NewEvent::insert`], if there is none of this kind of the same run.
    ///
    /// # Errors
    /// As there.
    pub fn insert_once(&self, connection: &Connection, now: Timestamp) -> Result<(), DbError> {
        if super::store::is_told(connection, self)? { Ok(()) } else { self.insert(connection, now) }
    }
}

/// On one line and without control characters: it may come from anywhere, and is shown in prompts and
/// on terminals.
pub(super) fn single_line(text: &str, max_bytes: usize) -> String {
    let plain: String =
        text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    text::one_line(&plain, max_bytes)
}
