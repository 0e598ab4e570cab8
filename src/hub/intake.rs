//! The way in: runs on the adapter's thread, finds the agent, commits to its inbox, tells the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::bindings::{Bindings, Refused};
use super::state::Event;
use crate::conversation::{Conversations, Place};
use crate::error::Fault;
use crate::id::AgentId;
use crate::message::{Accepted, Inbound, Intake, IntakeError};

pub struct AgentIntake {
    bindings: Bindings,
    agents: BTreeMap<AgentId, Conversations>,
    hub: Sender<Event>,
    stopping: Arc<AtomicBool>,
}

impl AgentIntake {
    /// `stopping` refuses everything once it is set.
    pub fn new(
        bindings: Bindings,
        agents: BTreeMap<AgentId, Conversations>,
        hub: Sender<Event>,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { bindings, agents, hub, stopping }
    }
}

impl Intake for AgentIntake {
    fn accept(&self, message: Inbound) -> Result<Accepted, IntakeError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(IntakeError::Stopping);
        }
        let agent = match self.bindings.route(&message) {
            Ok(agent) => agent.clone(),
            Err(Refused::NotAddressed) => {
                return Ok(Accepted::Refused("the message does not name the agent"));
            }
            Err(Refused::UnknownAgent(name)) => return Err(IntakeError::UnknownAgent(name)),
        };
        let conversations =
            self.agents.get(&agent).ok_or_else(|| IntakeError::UnknownAgent(agent.to_string()))?;
        let place = Place {
            conversation: message.conversation.clone(),
            instance: message.instance.clone(),
            direct: message.direct,
            name: message.place.clone(),
        };
        let lane = message.lane();
        let received = conversations
            .receive(message)
            .map_err(|error| IntakeError::Storage(error.to_string(), error.kind()))?;
        let Some(inbox) = received else { return Ok(Accepted::Duplicate) };
        // A hub that is gone reads the inbox at its next start.
        self.hub.send(Event::Arrived { agent, place, lane, inbox }).ok();
        Ok(Accepted::New(inbox))
    }
}
