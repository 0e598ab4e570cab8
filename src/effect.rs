//! What a tool may ask for. A tool never sees a channel or the hub: it tells an [`Effect`] (no
//! answer) or asks an [`Ask`] and waits for the [`Answer`].

use std::time::Duration;

use crate::id::ProcessId;
use crate::message::Place;

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Say this to the person; committed with the end of the turn.
    Reply { content: String },
    /// Put an emoji on the last message of the person.
    React { emoji: String },
    /// Say nothing this time.
    Skip { reason: String },
    /// What a worker is doing now.
    Status { text: String },
    /// What a worker's work came to; opens the outcome gate.
    Outcome { text: String, success: bool },
    /// What a job has to say to the conversation that it was made for; the last one counts.
    Deliver { content: String },
    /// A reading is over, and what it saved can be stored.
    Persisted,
    /// The schedule has changed: look what is due.
    Scheduled,
    /// A message to another agent; becomes a task there with the end of the turn.
    Delegate { target: String, message: String, depth: u32, limit: usize },
    /// A message to a worker of this conversation; it goes with the end of the turn.
    Route { worker: u64, message: String },
    /// The task board has changed; told after the commit.
    #[serde(skip)]
    Task(TaskNews),
}

/// What changed on an agent's task board, as far as it matters to who runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskNews {
    /// A worker may take it now.
    Ready(ReadyTask),
    /// No worker may take it, and who works on it since before this revision stops.
    Withdrawn { number: u64, revision: u64 },
    /// A task that another agent asked for is over.
    Answered,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyTask {
    pub number: u64,
    pub revision: u64,
    /// 0 comes first.
    pub urgency: u8,
    pub title: String,
    /// Where it was born and its result is told; none: nowhere.
    pub place: Option<Place>,
    /// A person made it ready, not a process: its result may start turns again.
    pub by_person: bool,
    /// What is left of the pause after its last failure.
    pub wait: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Branch {
        description: String,
    },
    SpawnWorker {
        task: String,
        interactive: bool,
        /// One of `task_overrides`.
        task_type: Option<String>,
    },
    /// Whether this worker can be sent a message; it goes by [`Effect::Route`].
    Route {
        worker: ProcessId,
    },
    Cancel {
        process: ProcessId,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Started(ProcessId),
    Done(String),
    Refused(Refusal),
}

/// Why the hub said no; the model reads the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{limit} {what} are running already, which is the limit; wait for one to end or cancel one")]
    Limit { what: &'static str, limit: usize },
    #[error("{0} is working on exactly this task already")]
    Duplicate(ProcessId),
    #[error("{0} is not running in this conversation")]
    Unknown(ProcessId),
    #[error("{0} is busy and cannot take more messages now")]
    Busy(ProcessId),
    #[error("the daemon is stopping")]
    Stopping,
    #[error("this process may not ask for that")]
    Forbidden,
}
