//! What a running process tells the hub.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::effect::{Answer, Ask, TaskNews};
use crate::error::Kind;
use crate::id::{AgentId, ConversationId, InboxId, InstanceId, ProcessId};
use crate::message::{Attachment, Inbound};

/// An inbound message with its place in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub id: InboxId,
    pub message: Inbound,
    /// The files that came with it.
    pub attachments: Vec<Attachment>,
}

/// Sent up by process threads; blocking, lossless.
#[derive(Debug, Clone)]
pub struct ProcessEvent {
    pub agent: AgentId,
    pub process: ProcessId,
    pub what: What,
}

/// What a process hands to the one that it starts.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// Platform ids of the messages that the turn is about.
    pub answers: Vec<String>,
    pub fork: Fork,
    /// The number of the turn.
    pub turn: Option<u64>,
}

/// What a branch forks from: the history as the turn saw it, and the new messages.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// Ids of what stood in front of the visible lines.
    pub summaries: Arc<[i64]>,
    /// Ids of the first and last visible line; none when nothing was said before.
    pub lines: Option<(i64, i64)>,
    /// The new messages as the model reads them.
    pub words: Arc<str>,
    /// Files came with them, or what was said before the conversation began stands there: what that says is
    /// nobody's word.
    pub outside: bool,
}

#[derive(Debug, Clone)]
pub enum What {
    /// A tool waits for the answer.
    Asked { ask: Ask, origin: Origin, answer: Sender<Answer> },
    /// A line for the status block.
    Status(String),
    /// The agent's jobs have changed.
    Scheduled,
    /// The turn has asked another agent; it is on disk.
    Delegated,
    /// The turn has messages for these workers; they are on disk.
    Routed(Vec<ProcessId>),
    /// The task board has changed.
    Task(TaskNews),
    /// There is something to do about the `window` of the conversation, or memories are to be taken from
    /// what has left it, or after a while from what was said.
    Pressed { window: bool, unread: bool, remember: Option<Duration> },
    /// An interactive worker has a first result in the database and waits for `route`.
    Waiting,
    /// It has heard something and works again; that is in the database.
    Works,
    /// What the cortex is to know of a run, at its end. A worker has a run for each segment.
    Observed(Box<Observation>),
    /// The last word of a process; exactly one comes, whatever happened. By then the terminal state
    /// is in the database, except after [`How::Panicked`] and [`How::Failed`].
    Exited(How),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A channel turn is committed up to this inbox row; these instances have new outbox rows.
    Turned {
        covered: Option<InboxId>,
        more: bool,
        outbox: Vec<InstanceId>,
    },
    /// No model can be asked, and the messages wait for one; after this time it is worth another try. These
    /// instances have new outbox rows.
    Deferred {
        wait: Duration,
        outbox: Vec<InstanceId>,
    },
    /// A branch or worker is in its terminal state in the database, its result waits to be relayed.
    Finished,
    /// The compactor has done one thing. `again`: there is more to do about the window; `unread`: memories
    /// are to be taken from what has left it.
    Compacted {
        again: bool,
        unread: bool,
    },
    /// Memories were taken from what was said; after this time it is to be done again.
    Remembered {
        next: Option<Duration>,
    },
    /// A chunk of a file is in, or one more try of it has failed; either stands in the database.
    Ingested(Ingested),
    /// The cortex has done its errand; these are worth while next, after these times.
    Tended(Vec<(Errand, Duration)>),
    /// The run of a job has ended; what it had to say waits there.
    Delivered(Option<(InstanceId, ConversationId)>),
    Cancelled,
    /// Its work was gone before it began; nothing was written.
    Idle,
    /// Nothing was committed; the hub decides whether to try again.
    Failed(Kind, String),
    Panicked(String),
}

/// What happened in one run, for the cortex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    pub model_calls: usize,
    /// In and out.
    pub tokens: u64,
    /// Why no model answered, if none did.
    pub provider_error: Option<Kind>,
    /// The offline responder stood in for the models.
    pub offline: bool,
    pub tools: Vec<ToolUse>,
    /// Calls that were warned about or refused because they repeat themselves.
    pub repeated: usize,
    pub end: DriveEnd,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolUse {
    pub name: String,
    pub calls: u32,
    pub failures: u32,
    /// Failures in a row: before the first success, the longest, and behind the last success.
    pub leading: u32,
    pub longest: u32,
    pub trailing: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DriveEnd {
    #[default]
    Done,
    /// The limit of model calls came first.
    Limit,
    Repeating,
    Cancelled,
    Failed,
}

/// What the cortex of an agent does, one at a time and each after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// Looks after memories, bulletin and profile, without a model; says which others are worth one.
    Tend,
    /// Has a model put the bulletin into words.
    Smooth,
    /// Has a model write the profile.
    Profile,
    /// Has a model put what happened today into a paragraph.
    Intraday,
    /// Has a model put a day that is over into a summary.
    Daily,
}

impl Errand {
    pub const ALL: [Self; 5] = [Self::Tend, Self::Smooth, Self::Profile, Self::Intraday, Self::Daily];

    pub fn as_str(self) -> &'static str {
        match self {
            Errand::Tend => "upkeep",
            Errand::Smooth => "bulletin",
            Errand::Profile => "profile",
            Errand::Intraday => "paragraph of the day",
            Errand::Daily => "summary of a day",
        }
    }

    /// One of the two that put together what happened.
    pub fn is_synthesis(self) -> bool {
        matches!(self, Errand::Intraday | Errand::Daily)
    }
}

/// What is left of a file behind one of its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ingested {
    /// The next chunk.
    More,
    /// The same chunk, after this time.
    Again(Duration),
    /// Nothing: all of it is in, or it was given up.
    Over,
}

/// Why a process is told to stop; part of what it writes as its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    Asked(String),
    Timeout,
    Shutdown,
}
