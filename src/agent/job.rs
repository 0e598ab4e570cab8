//! What the hub gives to a process thread.

use std::time::Duration;

use crate::billing::Payer;
use crate::conversation::Place;
use crate::cortex::NewCortexEvent;
use crate::error::Kind;
use crate::event::{Errand, Origin};
use crate::id::{AgentId, ConversationId, ProcessId};

/// One process to run.
#[derive(Debug, Clone)]
pub struct Job {
    pub process: ProcessId,
    pub place: Place,
    pub work: Work,
}

impl Job {
    /// On whose account its model calls go. Where the operator talks with the cortex, somebody waits.
    pub(super) fn payer(&self, agent: &AgentId) -> Payer {
        let payer = Payer::new(agent.clone(), self.process.kind);
        Payer {
            number: Some(self.process.number),
            conversation: Some(self.place.conversation.clone()),
            background: payer.background && !matches!(self.work, Work::CortexChat(_)),
            ..payer
        }
    }
}

#[derive(Debug, Clone)]
pub enum Work {
    /// One turn of a channel.
    Turn(Turn),
    /// Answers what the failed turn should have answered, with a plain sentence and without a model.
    Apology {
        kind: Kind,
        single: bool,
    },
    /// Answers the commands that wait, without a model; with an apology, the first of them with that.
    Commands {
        /// What runs in the whole agent.
        running: Vec<(ConversationId, Running)>,
        troubles: Troubles,
        apology: Option<Kind>,
    },
    Branch {
        description: String,
        origin: Origin,
    },
    Worker {
        task: String,
        interactive: bool,
        /// One of `task_overrides`.
        task_type: Option<String>,
        origin: Origin,
    },
    /// A branch or worker that was cut off goes on.
    GoOn {
        /// The task of the worker, the description of the branch.
        what: String,
        /// A worker that takes more messages.
        interactive: bool,
        /// It waits for one.
        waits: bool,
        /// Platform ids of the messages that asked for it.
        answers: Vec<String>,
    },
    /// A worker for a task of the board, if it still is ready at this revision.
    Task {
        number: u64,
        revision: u64,
        /// Its number and title.
        what: String,
    },
    /// Makes the window of the conversation smaller; so many tries have failed before.
    Compaction {
        tries: u32,
    },
    /// Takes memories from what has left the window.
    Extraction,
    /// Takes memories from what was said since that was last done.
    Persistence,
    /// Reads the next chunk of the file with this hash.
    Chunk {
        file: String,
    },
    /// One thing that the cortex does; before that it notes what the hub has seen.
    Cortex {
        errand: Errand,
        notes: Vec<NewCortexEvent>,
    },
    /// Answers the operator in a thread of the cortex.
    CortexChat(Chat),
    /// The end of a job's run, when nothing of it is going on any more.
    RunEnd {
        execution: i64,
        end: RunEnd,
    },
}

/// One answer in a thread of the cortex.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chat {
    pub thread: String,
    /// The conversation that it is about.
    pub channel: Option<ConversationId>,
    /// None: it tells the results that wait.
    pub message: Option<String>,
    /// Tell the results as they are, without a model: too many of them came since the operator wrote.
    pub absorb: bool,
    /// Branches and workers of the whole agent that run now, at most [`Chat::RUNNING_MAX`].
    pub running: Vec<(ConversationId, Running)>,
}

impl Chat {
    /// What an answer is told of; the rest is counted in `GET /api/status`.
    pub const RUNNING_MAX: usize = 20;
}

/// What an agent does without for a while, or could as well do without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Troubles {
    /// What fails again and again: tools, `models`, `workers`.
    pub failing: Vec<String>,
    /// Errands of the cortex that rest, and for how long.
    pub resting: Vec<(String, Duration)>,
}

/// How the run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEnd {
    Done,
    /// With the reason, for the operator.
    Failed(Kind, String),
    TimedOut,
}

#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Take one message and leave the rest for the next turn (direct conversations).
    pub single: bool,
    /// Keep results in the history without a model call: the retrigger limit is reached.
    pub absorb: bool,
    /// What runs in this conversation now.
    pub running: Vec<Running>,
    /// The run of the job that this channel belongs to: nobody is there to be answered.
    pub execution: Option<i64>,
}

/// One line of the status block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub process: ProcessId,
    pub what: String,
    pub status: String,
    pub seconds: u64,
    pub waiting: bool,
}
