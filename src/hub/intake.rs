//! The way in: finds the agent on the adapter's thread, commits to its inbox, tells the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::Sender;

use super::bindings::{Bindings, Refused};
use super::state::Event;
use crate::conversation::{Conversations, Place};
use crate::db::DbError;
use crate::error::Fault;
use crate::id::{AgentId, ConversationId, InboxId, InstanceId};
use crate::message::{Accepted, Beginning, Earlier, Inbound, Intake, IntakeError, Lane, NewFile, Taken};
use crate::thread::Current;

/// Messages that wait for their commit without a thread; one more is refused. Half of the database's
/// queue, so that the processes that answer have the other half.
const WAITING_MAX: usize = 128;
/// Messages whose files are being written, each on the thread that brought it; one more is refused. The HTTP
/// server has four threads, and two of them stay free for whoever only asks.
const WRITING_MAX: usize = 2;

pub struct AgentIntake {
    bindings: Arc<Current<Bindings>>,
    agents: BTreeMap<AgentId, Conversations>,
    hub: Sender<Event>,
    stopping: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
    writing: Arc<AtomicUsize>,
}

impl AgentIntake {
    /// `stopping` refuses everything once it is set.
    pub fn new(
        bindings: Arc<Current<Bindings>>,
        agents: BTreeMap<AgentId, Conversations>,
        hub: Sender<Event>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { bindings, agents, hub, stopping, waiting: Arc::default(), writing: Arc::default() }
    }

    /// Whom the message is for.
    fn route(&self, message: &Inbound) -> Result<(&Conversations, Arrival), Result<Accepted, IntakeError>> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Err(IntakeError::Stopping));
        }
        let agent = match self.bindings.get().route(message) {
            Ok(agent) => agent.clone(),
            Err(Refused::NotAddressed) => {
                return Err(Ok(Accepted::Refused("the message does not name the agent")));
            }
            Err(Refused::UnknownAgent(name)) => return Err(Err(IntakeError::UnknownAgent(name))),
        };
        let unknown = || Err(IntakeError::UnknownAgent(agent.to_string()));
        let conversations = self.agents.get(&agent).ok_or_else(unknown)?;
        let place = Place {
            conversation: message.conversation.clone(),
            instance: message.instance.clone(),
            direct: message.direct,
            name: message.place.clone(),
        };
        let lane = message.lane();
        let (hub, addressed) = (self.hub.clone(), message.addressed);
        Ok((conversations, Arrival { hub, agent, place, lane, addressed }))
    }
}

impl Intake for AgentIntake {
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError> {
        match self.route(&message) {
            Ok((conversations, arrival)) => arrival.tell(conversations.receive(message)),
            Err(outcome) => outcome,
        }
    }

    fn accept_after(&self, message: Inbound, earlier: Vec<Earlier>) -> Result<Accepted, IntakeError> {
        if earlier.is_empty() {
            return self.accept(message);
        }
        match self.route(&message) {
            Ok((conversations, arrival)) => {
                let room = self.bindings.get().earlier(&arrival.agent);
                arrival.tell(conversations.receive_after(message, earlier, room))
            }
            Err(outcome) => outcome,
        }
    }

    fn beginning(&self, instance: &InstanceId, conversation: &ConversationId) -> Option<Beginning> {
        let bindings = self.bindings.get();
        let agent = bindings.agent_of(instance, conversation);
        // A conversation without what was said before it is better than none.
        let since = self.agents.get(agent)?.begun(conversation);
        let since = since.inspect_err(|error| log::warn!("{conversation} may be new: {error}")).ok()?;
        Some(match since {
            Some(since) => Beginning::Known { since },
            None => Beginning::New { lines: bindings.earlier(agent).lines },
        })
    }

    fn begin(&self, message: Inbound, taken: Taken) {
        let (conversations, arrival) = match self.route(&message) {
            Ok(found) => found,
            Err(outcome) => return taken(outcome),
        };
        let Some(waiting) = Waiting::among(&self.waiting, WAITING_MAX) else {
            return taken(Err(IntakeError::Busy));
        };
        conversations.begin_receive(message, move |received| {
            drop(waiting);
            taken(arrival.tell(received));
        });
    }

    /// Returns when the files are on disk, before the commit.
    fn begin_with(&self, message: Inbound, files: Vec<NewFile>, taken: Taken) {
        if files.is_empty() {
            return self.begin(message, taken);
        }
        let (conversations, arrival) = match self.route(&message) {
            Ok(found) => found,
            Err(outcome) => return taken(outcome),
        };
        let waiting = Waiting::among(&self.waiting, WAITING_MAX);
        let (Some(waiting), Some(_writing)) = (waiting, Waiting::among(&self.writing, WRITING_MAX)) else {
            return taken(Err(IntakeError::Busy));
        };
        conversations.begin_receive_with(message, files, move |received| {
            drop(waiting);
            taken(arrival.tell(received));
        });
    }
}

/// Ends when it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// A place among those who wait, if there is one.
    fn among(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |count: usize| (count < most).then_some(count + 1);
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Self(count.clone()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the hub hears of a message once it is committed.
struct Arrival {
    hub: Sender<Event>,
    agent: AgentId,
    place: Place,
    lane: Lane,
    addressed: bool,
}

impl Arrival {
    /// May run on the thread of the database: the hub, which it waits for when the queue is full,
    /// never waits for that one.
    fn tell(self, received: Result<Option<InboxId>, DbError>) -> Result<Accepted, IntakeError> {
        let Self { hub, agent, place, lane, addressed } = self;
        let received = received.map_err(|error| IntakeError::Storage(error.to_string(), error.kind()))?;
        let Some(inbox) = received else { return Ok(Accepted::Duplicate) };
        // A hub that is gone reads the inbox at its next start.
        hub.send(Event::Arrived { agent, place, lane, inbox, addressed }).ok();
        Ok(Accepted::New(inbox))
    }
}
