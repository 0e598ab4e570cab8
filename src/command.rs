//! What the API and the terminal may ask of the hub, and what it answers.

use crossbeam_channel::Sender;

use crate::effect::TaskNews;
use crate::id::{AgentId, ProcessId};

#[derive(Debug, Clone)]
pub enum Command {
    Status {
        answer: Sender<StatusReport>,
    },
    CancelProcess {
        agent: AgentId,
        process: ProcessId,
        reason: String,
        answer: Sender<bool>,
    },
    /// The operator has changed the board.
    Tasks {
        agent: AgentId,
        news: Vec<TaskNews>,
    },
}

/// The hub's own view of what runs now; what is stored is read from the database instead.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct StatusReport {
    pub conversations: usize,
    pub waiting_turns: usize,
    pub processes: Vec<ProcessReport>,
    pub stopping: bool,
    #[serde(default)]
    pub cortex: Vec<CortexReport>,
    /// Conversations with a turn, a process or work that waits.
    pub busy: Vec<String>,
}

/// How the cortex of one agent does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct CortexReport {
    pub agent: String,
    /// cold, warming, warm, degraded, off.
    pub state: String,
    /// The errand that runs now.
    pub running: Option<String>,
    /// Errands that rest after failures, and for how long.
    pub resting: Vec<String>,
    pub warm_after_ms: Option<u64>,
    /// Turns that began before it was warm.
    pub turns_while_cold: u64,
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ProcessReport {
    pub agent: String,
    pub process: String,
    pub conversation: String,
    pub what: String,
    pub status: String,
    pub seconds: u64,
}
