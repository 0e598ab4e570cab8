//! What the API and the terminal may ask of the hub, and what it answers.

use crossbeam_channel::Sender;

use crate::effect::{Answer, TaskNews};
use crate::id::{AgentId, ConversationId, ProcessId};

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
    /// The operator has written to the cortex.
    CortexChat {
        agent: AgentId,
        thread: String,
        /// The conversation that it is about.
        channel: Option<ConversationId>,
        message: String,
        answer: Sender<Answer>,
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
    /// An answer to the operator is being made.
    pub chatting: bool,
    pub warm_after_ms: Option<u64>,
    /// Turns that began before it was warm.
    pub turns_while_cold: u64,
    pub observed: Observed,
}

/// What the cortex has seen of the agent's runs since the start of the daemon.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Observed {
    /// The last ones, newest first.
    pub signals: Vec<String>,
    pub tools: Vec<ToolReport>,
    pub model_calls: u64,
    pub tokens: u64,
    /// Runs for which no model answered.
    pub provider_failures: u64,
    pub ended_by_limit: u64,
    pub ended_by_repetition: u64,
    /// What has failed `cortex.circuit_breaker_threshold` times in a row and not succeeded since: names of tools,
    /// `models` and `workers`. Nothing is taken away for it.
    #[serde(default)]
    pub tripped: Vec<String>,
}

/// How a tool does lately.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct ToolReport {
    pub name: String,
    pub calls: u32,
    pub failures: u32,
    /// It has failed several times in a row and not succeeded since.
    pub failing: bool,
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
