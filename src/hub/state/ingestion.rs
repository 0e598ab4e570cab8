//! Files that are read into memory: for each agent one chunk at a time, one file after the other.
//!
//! What waits is found in the folder and in the database, not here: whatever is forgotten here (a
//! failure, a stop) is offered again at the next look.

use std::time::Duration;

use super::{Action, Begin, Hub, ProcessKey, Stage, TimerKey};
use crate::agent::Work;
use crate::conversation::Place;
use crate::event::{How, Ingested};
use crate::id::{AgentId, InstanceId, ProcessKind};

/// Whom to ring when a file is over, so that the next one is looked for.
pub const INGEST: &str = "ingest";
/// One chunk that takes longer is stopped and counts as a failed try: ten calls of a slow model.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(600);

/// The file that an agent reads now.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    place: Place,
    file: String,
}

impl Hub {
    /// Begins with a file, unless the agent is reading one.
    pub(super) fn file_waits(&mut self, agent_id: AgentId, place: Place, file: String, now: Duration) {
        let Some(agent) = self.agents.get_mut(&agent_id) else { return };
        if agent.reading.is_none() && self.stage == Stage::Running {
            agent.reading = Some(Reading { place, file });
            self.read_on(&agent_id, now);
        }
    }

    /// Starts the process for the next chunk.
    pub(super) fn read_on(&mut self, agent_id: &AgentId, now: Duration) {
        let Some(Reading { place, file }) = self.agents.get(agent_id).and_then(|agent| agent.reading.clone())
        else {
            return;
        };
        if self.stage != Stage::Running {
            return;
        }
        let what = place.name.clone();
        let begin = Begin::new(ProcessKind::Ingestion, what, CHUNK_TIMEOUT);
        self.start(agent_id, place, begin, now, Work::Chunk { file });
    }

    pub(super) fn chunk_ended(&mut self, key: &ProcessKey, how: How, now: Duration) {
        match how {
            How::Ingested(Ingested::More) => self.read_on(&key.0, now),
            How::Ingested(Ingested::Again(wait)) => {
                self.timers.set(&TimerKey::Reading(key.0.clone()), Some(now + wait));
            }
            How::Ingested(Ingested::Over) => {
                if let Some(reading) = self.stop_reading(&key.0) {
                    let (instance, conversation) = (InstanceId::new(INGEST), reading.place.conversation);
                    self.actions.push(Action::Ring { instance, conversation });
                }
            }
            _ => drop(self.stop_reading(&key.0)),
        }
    }

    fn stop_reading(&mut self, agent: &AgentId) -> Option<Reading> {
        self.agents.get_mut(agent)?.reading.take()
    }
}
