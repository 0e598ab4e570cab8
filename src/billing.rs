//! The words between who asks models (`llm`) and who keeps the accounts (`usage`).

use crate::id::{AgentId, ConversationId, ProcessKind};

/// On whose account a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payer {
    pub agent: AgentId,
    pub kind: ProcessKind,
    /// Number of the process within the agent.
    pub number: Option<u64>,
    pub conversation: Option<ConversationId>,
    /// Nobody waits for it.
    pub background: bool,
}

impl Payer {
    /// For work that belongs to no conversation.
    pub fn new(agent: AgentId, kind: ProcessKind) -> Self {
        let background =
            matches!(kind, ProcessKind::Compactor | ProcessKind::Cortex | ProcessKind::Ingestion);
        Self { agent, kind, number: None, conversation: None, background }
    }
}

/// One request that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub payer: &'a Payer,
    /// `provider/model`.
    pub model: &'a str,
    /// No tokenizer makes more of it.
    pub input_most: u64,
    /// A report of fewer is not believed.
    pub input_least: u64,
    /// What the request says; none: it does not.
    pub output_most: Option<u64>,
}

/// Tokens as a provider reports them; none: it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// With those that were read from and written to a cache.
    pub input: Option<u64>,
    /// With those of thoughts.
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write: Option<u64>,
    pub reasoning: Option<u64>,
}

/// What came of a request, for who has to pay it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A report of fewer tokens of output than `output_least` is not believed.
    Billed { tokens: Tokens, output_least: u64 },
    /// It may have been answered: all that it can come to counts, whatever was reported before it broke off.
    Unknown(Tokens),
    /// It never left, or the provider refused it.
    Free,
}

/// What happens where a ceiling leaves no room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Exhausted {
    /// A plain sentence takes the place of an answer.
    #[default]
    Refuse,
    /// The offline responder answers.
    Offline,
    /// This model is asked, as far as its price leaves room.
    Model(String),
}

/// A request that must not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// For the operator.
    pub reason: String,
    pub then: Exhausted,
}

/// A ceiling of which the operator should know, because little of it is left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Strained {
    /// `the daemon` or `agent main`.
    pub owner: String,
    /// `day` or `month`.
    pub period: &'static str,
    /// `tokens` or `USD`.
    pub unit: &'static str,
    /// Of it that are spent or reserved.
    pub percent: u64,
}

/// Leave to send one request.
pub trait Permit: Send {
    /// The output tokens that the request has to carry as its limit; none: whatever it carries.
    fn output_most(&self) -> Option<u64>;
    /// Dropped without it, the outcome counts as unknown.
    fn settle(self: Box<Self>, outcome: Outcome);
}

/// Asked before every request.
pub trait Meter: Send + Sync {
    /// # Errors
    /// A ceiling leaves no room for the most that the request may come to, or nobody can tell.
    fn authorise(&self, wanted: &Wanted<'_>) -> Result<Box<dyn Permit>, Refused>;

    /// The ceilings for calls of this agent, or of all, of which so much is used that the operator is warned.
    fn strained(&self, _agent: Option<&AgentId>) -> Vec<Strained> {
        Vec::new()
    }
}
