//! The thread that looks for files to remember, tied to the hub.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use spacebot::clock::SharedClock;
use spacebot::conversation::Place;
use spacebot::hub::Bell;
use spacebot::hub::state::{Event, INGEST};
use spacebot::id::{ConversationId, InstanceId};
use spacebot::ingest::{self, Ingestion, Waiting, Watch};
use spacebot::thread::{self, Cancel};

use super::{Ground, StartError};

/// Digits of the hash in the name of a file's conversation.
const DIGITS: usize = 12;

/// Runs while any agent takes files.
pub(super) struct Ingest {
    cancel: Cancel,
    handle: JoinHandle<()>,
    ring: Sender<()>,
}

impl Ingest {
    /// None when no agent takes files.
    pub(super) fn start(ground: &Ground, hub: Sender<Event>) -> Result<Option<Self>, StartError> {
        let taking = ground.agents.iter().filter(|(_, agent)| agent.config.ingestion.enabled);
        let watches: Vec<Watch> = taking
            .map(|(id, agent)| {
                let ingestion = Ingestion::new(agent.conversations.db().clone(), agent.workspace.path());
                Watch::new(id.clone(), ingestion, agent.config.ingestion.clone())
            })
            .collect();
        if watches.is_empty() {
            return Ok(None);
        }
        let (cancel, clock) = (Cancel::new(), ground.clock.clone());
        // One ring says as much as several.
        let (ring, rung) = bounded(1);
        let stopped = cancel.clone();
        let body = move || look(watches, &clock, &rung, &stopped, &hub);
        let handle =
            thread::spawn("ingest", body).map_err(|error| StartError::io("ingest thread", &error))?;
        Ok(Some(Self { cancel, handle, ring }))
    }

    /// How the hub says that a file is over.
    pub(super) fn bell(&self) -> (InstanceId, Bell) {
        let ring = self.ring.clone();
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
