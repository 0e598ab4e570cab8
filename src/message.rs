//! What comes in from people and what goes out to them, in words that no platform owns.

pub mod attachment;
pub mod slash;

use crate::clock::Timestamp;
use crate::error::{Fault, Kind};
use crate::id::{AgentId, ConversationId, InboxId, InstanceId, OutboxId};

pub use attachment::{Attachment, FileKind, NewFile};

/// One message as an adapter read it. `(instance, platform_id)` is unique: the same pair twice is
/// the same message (P2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    pub instance: InstanceId,
    /// The platform's own id, or what the adapter made unique where the platform has none.
    pub platform_id: String,
    pub conversation: ConversationId,
    /// Set where the sender names the agent (webhook `agent_id`, `spacebot chat --agent`).
    pub agent: Option<AgentId>,
    pub sender_id: String,
    pub sender_name: String,
    pub content: String,
    pub sent_at: Timestamp,
    /// One person and the agent, nobody else.
    pub direct: bool,
    /// The message names the agent or answers it.
    pub addressed: bool,
    /// Where this is, for the prompt: `libera / #pi`.
    pub place: String,
}

impl Inbound {
    pub fn lane(&self) -> Lane {
        if slash::parse(&self.content).is_some() { Lane::Commands } else { Lane::Talk }
    }
}

/// Something that was said before a conversation began, as its platform tells it: information, and never a
/// message that somebody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub sender_name: String,
    /// None where the platform does not say.
    pub at: Option<Timestamp>,
    pub text: String,
    /// It was said under the agent's name.
    pub own: bool,
}

/// Whether a conversation has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing was said in it yet; so many lines from before are wanted.
    New { lines: usize },
    /// Its first message came then; what is older is none of its messages.
    Known { since: Timestamp },
}

/// Where a conversation takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub conversation: ConversationId,
    pub instance: InstanceId,
    pub direct: bool,
    /// For the prompt, such as `libera / #pi`.
    pub name: String,
}

/// In front of the name of a thread in which the operator talks with the cortex; also its instance.
const CORTEX: &str = "cortex";

impl Place {
    /// Where workers belong that were started in this thread of the cortex. No adapter reaches it.
    pub fn of_thread(thread: &str) -> Self {
        Self {
            conversation: ConversationId::new(format!("{CORTEX}:{thread}")),
            instance: InstanceId::new(CORTEX),
            direct: true,
            name: format!("{CORTEX} / {thread}"),
        }
    }

    /// The thread of the cortex that this conversation is, if it is one.
    pub fn thread_of(conversation: &ConversationId) -> Option<&str> {
        conversation.as_str().strip_prefix(CORTEX)?.strip_prefix(':')
    }
}

/// Commands of a conversation are answered beside its turns: `/status` does not wait for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Talk,
    Commands,
}

/// What became of an inbound message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// Committed; the platform may be told now.
    New(InboxId),
    /// Committed before; the platform may be told now.
    Duplicate,
    /// Not for us, with the reason for the log; nothing was stored.
    Refused(&'static str),
}

/// Told what became of a message.
pub type Taken = Box<dyn FnOnce(Result<Accepted, IntakeError>) + Send>;

/// Takes messages in.
pub trait Intake: Send + Sync {
    /// Returns only after the message is on disk (P1).
    ///
    /// # Errors
    /// Nothing was stored and the platform must not be told that we have it.
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError>;

    /// As [`Intake::accept`] for a message that may begin its conversation: then `earlier`, oldest first, is
    /// kept with it in the same commit. Else it is of no use.
    ///
    /// # Errors
    /// As there.
    fn accept_after(&self, message: Inbound, _earlier: Vec<Earlier>) -> Result<Accepted, IntakeError> {
        self.accept(message)
    }

    /// Whether a conversation has begun. None: nobody can tell now.
    fn beginning(&self, _instance: &InstanceId, _conversation: &ConversationId) -> Option<Beginning> {
        None
    }

    /// As [`Intake::accept`], for those whose thread must not wait for the disk: `taken` is called
    /// exactly once, at once or later on another thread, and must not wait for the disk either.
    fn begin(&self, message: Inbound, taken: Taken) {
        taken(self.accept(message));
    }

    /// As [`Intake::begin`] for a message with files. Whoever takes none refuses them.
    fn begin_with(&self, message: Inbound, files: Vec<NewFile>, taken: Taken) {
        match files.is_empty() {
            true => self.begin(message, taken),
            false => taken(Ok(Accepted::Refused("files are not taken here"))),
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum IntakeError {
    #[error("the message could not be stored: {0}")]
    Storage(String, Kind),
    #[error("too many messages wait for the disk")]
    Busy,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("there is no agent named {0:?}")]
    UnknownAgent(String),
}

impl Fault for IntakeError {
    fn kind(&self) -> Kind {
        match self {
            IntakeError::Storage(_, kind) => *kind,
            IntakeError::Busy => Kind::Full,
            IntakeError::Stopping => Kind::Transient,
            IntakeError::UnknownAgent(_) => Kind::NotFound,
        }
    }
}

/// What an answer is made of.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Content {
    Text {
        text: String,
    },
    /// `target` is the platform id of the message reacted to.
    Reaction {
        emoji: String,
        target: String,
    },
}

/// A committed answer that waits for its adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    pub id: OutboxId,
    pub instance: InstanceId,
    pub conversation: ConversationId,
    pub content: Content,
    /// Platform ids of the messages that this answers; may be empty.
    pub answers: Vec<String>,
    pub created_at: Timestamp,
}

/// How far an answer has come. `Sending` is written before the first byte where the platform knows
/// no idempotency key, so that a crash leaves `Unknown` and not a second copy (P2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    Sending,
    Sent {
        platform_id: Option<String>,
    },
    /// The platform said no, for good.
    Refused {
        reason: String,
    },
    /// It may or may not have arrived; it is not sent again, the operator is told.
    Unknown {
        reason: String,
    },
}

/// Told whether the progress of answers is on disk.
pub type Recorded = Box<dyn FnOnce(Result<(), OutboxError>) + Send>;

/// What a process is about to say, for who looks on: a draft, not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saying<'a> {
    /// A new text begins.
    Begins,
    /// It goes on with this.
    More(&'a str),
    /// What was shown is void, or stands in the outbox now.
    Over,
    /// A model is asked.
    Thinking,
    /// A tool is called, or has done its work (`Some(true)`) or not.
    Tool { tool: &'a str, outcome: Option<bool> },
    /// Nothing came of it; what stands in the end says why.
    Failed,
}

/// Whom the progress of the cortex of an agent is told.
pub fn cortex_bell(agent: &AgentId) -> InstanceId {
    InstanceId::new(format!("{CORTEX}:{agent}"))
}

/// How an adapter hears that it has something to do. Neither may block.
pub trait Bell: Send + Sync {
    /// The outbox has something for it.
    fn ring(&self, conversation: &ConversationId);

    /// Something is being written in this conversation.
    fn saying(&self, _conversation: &ConversationId, _saying: Saying<'_>) {}
}

impl<F: Fn(&ConversationId) + Send + Sync> Bell for F {
    fn ring(&self, conversation: &ConversationId) {
        self(conversation);
    }
}

/// The adapter's view of the outbox.
pub trait Outbox: Send + Sync {
    /// Answers of this instance that were never begun, oldest first, with an id above `after`, at
    /// most `limit`; of one conversation only if one is given.
    fn pending(
        &self,
        instance: &InstanceId,
        conversation: Option<&ConversationId>,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError>;

    /// As [`Outbox::record`] with [`Delivery::Sent`], without waiting for the disk: for receivers that
    /// say again with every request how far they have come.
    ///
    /// # Errors
    /// The storage is closed.
    fn acknowledge(&self, ids: &[OutboxId], conversation: &ConversationId) -> Result<(), OutboxError> {
        self.record(ids, conversation, Delivery::Sent { platform_id: None })
    }

    /// Records progress for these answers in one commit. They must be of one conversation.
    fn record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
    ) -> Result<(), OutboxError>;

    /// As [`Outbox::record`], for those whose thread must not wait for the disk: `recorded` is called
    /// exactly once, at once or later on another thread, and must not wait for the disk either.
    fn begin_record(
        &self,
        ids: &[OutboxId],
        conversation: &ConversationId,
        delivery: Delivery,
        recorded: Recorded,
    ) {
        recorded(self.record(ids, conversation, delivery));
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the outbox could not be read or written: {reason}")]
pub struct OutboxError {
    pub reason: String,
    pub kind: Kind,
}

impl Fault for OutboxError {
    fn kind(&self) -> Kind {
        self.kind
    }
}
