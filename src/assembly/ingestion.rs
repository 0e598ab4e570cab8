//! The thread that looks for files to remember, tied to the hub.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use spacebot::clock::SharedClock;
use spacebot::config::IngestionConfig;
use spacebot::conversation::Place;
use spacebot::hub::Agents;
use spacebot::hub::state::{Event, INGEST};
use spacebot::id::{AgentId, ConversationId, InstanceId};
use spacebot::ingest::{self, Ingestion, Waiting, Watch};
use spacebot::message::Bell;
use spacebot::thread::{self, Cancel, Current};

use super::{Ground, StartError};

/// Digits of the hash in the name of a file's conversation.
const DIGITS: usize = 12;

/// While no agent takes files, the thread waits for a change of that alone.
pub(super) struct Ingest {
    cancel: Cancel,
    handle: JoinHandle<()>,
    switches: Switches,
}

/// What the thread goes by, and how it hears that this has changed.
#[derive(Clone)]
pub(super) struct Switches {
    settings: BTreeMap<AgentId, Arc<Current<IngestionConfig>>>,
    ring: Sender<()>,
}

impl Switches {
    pub(super) fn set(&self, agents: &Agents) {
        for (id, settings) in &self.settings {
            if let Some(agent) = agents.get(id).filter(|agent| agent.config.ingestion != *settings.get()) {
                settings.set(agent.config.ingestion.clone());
                self.ring.try_send(()).ok(); // full: it rings already
            }
        }
    }
}

impl Ingest {
    pub(super) fn start(ground: &Ground, hub: Sender<Event>) -> Result<Self, StartError> {
        let (mut watches, mut settings) = (Vec::new(), BTreeMap::new());
        for (id, agent) in &ground.agents {
            let ingestion = Ingestion::new(agent.conversations.db().clone(), agent.workspace.path());
            let current = Arc::new(Current::new(agent.config.ingestion.clone()));
            watches.push(Watch::new(id.clone(), ingestion, current.clone()));
            settings.insert(id.clone(), current);
        }
        let (cancel, clock) = (Cancel::new(), ground.clock.clone());
        // One ring says as much as several.
        let (ring, rung) = bounded(1);
        let stopped = cancel.clone();
        let body = move || look(watches, &clock, &rung, &stopped, &hub);
        let handle =
            thread::spawn("ingest", body).map_err(|error| StartError::io("ingest thread", &error))?;
        Ok(Self { cancel, handle, switches: Switches { settings, ring } })
    }

    pub(super) fn switches(&self) -> Switches {
        self.switches.clone()
    }

    /// How the hub says that a file is over.
    pub(super) fn bell(&self) -> (InstanceId, Arc<dyn Bell>) {
        let ring = self.switches.ring.clone();
        let bell = move |_: &ConversationId| {
            ring.try_send(()).ok(); // full: it rings already
        };
        (InstanceId::new(INGEST), Arc::new(bell))
    }

    /// The thread ends soon after.
    pub(super) fn stop(self) -> JoinHandle<()> {
        self.cancel.cancel();
        self.handle
    }
}

/// The folder that people put files into; needs to be made only where files are taken.
pub(super) fn make_folder_of(agent: &AgentId, workspace: &Path) {
    if let Err(error) = super::folders::make_folder(&workspace.join(ingest::FOLDER)) {
        // Something that a worker made stands in its place: no reason not to go on.
        log::warn!("agent {agent}: no files can be taken: {error}");
    }
}

fn look(watches: Vec<Watch>, clock: &SharedClock, rung: &Receiver<()>, cancel: &Cancel, hub: &Sender<Event>) {
    ingest::run(watches, clock, rung, cancel, &|Waiting { agent, hash, name }| {
        let digits = hash.get(..DIGITS).unwrap_or(&hash);
        let place = Place {
            conversation: ConversationId::new(format!("{INGEST}:{digits}")),
            instance: InstanceId::new(INGEST),
            direct: false,
            name: ingest::shown(&name),
        };
        let event = Event::FileWaits { agent, place, file: hash };
        select! {
            // A hub that is gone has stopped.
            send(hub, event) -> _ => {}
            recv(cancel.receiver()) -> _ => {}
        }
    });
}
