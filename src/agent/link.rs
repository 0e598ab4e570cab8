//! What ties a running process to the hub: the way up, the stop request, the messages for it.

use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};

use super::pulse::Pulse;
use super::stage::Stage;
use crate::conversation::Started;
use crate::effect::{Answer, Ask, Effect};
use crate::event::{Origin, StopReason, What};
use crate::message::Saying;
use crate::thread::Cancel;
use crate::tools::{Desk, ToolError};

/// The hub answers between two of its events; this long without an answer means that it is broken.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The ends of a process thread; the hub's performer holds the others.
pub struct Link<'a> {
    /// Blocks while the hub is busy.
    pub up: &'a (dyn Fn(What) + 'a),
    pub cancel: &'a Cancel,
    /// Set before `cancel` is raised.
    pub reason: &'a OnceLock<StopReason>,
    /// Rings when a person has written to the conversation of the running turn, or a turn to the running
    /// worker. Only a hint: what was written stands in the database.
    pub rings: &'a Receiver<()>,
    pub pulse: &'a Pulse,
    /// What is being written, for who looks on. Never blocks.
    pub show: &'a (dyn Fn(Saying<'_>) + 'a),
    /// All that is going on, for the operator. Never blocks.
    pub stage: &'a Stage,
}

impl Link<'_> {
    pub(super) fn stop_reason(&self) -> StopReason {
        self.reason.get().cloned().unwrap_or(StopReason::Shutdown)
    }
}

/// Collects the effects of the tools and carries their questions to the hub.
pub(super) struct ProcessDesk<'a> {
    link: &'a Link<'a>,
    /// Handed to whatever this process starts.
    pub(super) origin: Origin,
    pub(super) effects: Vec<Effect>,
    /// Branches and workers that were started in this run.
    pub(super) started: usize,
    /// The same in full, for the commit of a turn.
    pub(super) runs: Vec<Started>,
}

impl<'a> ProcessDesk<'a> {
    pub(super) fn new(link: &'a Link<'a>, origin: Origin) -> Self {
        Self { link, origin, effects: Vec::new(), started: 0, runs: Vec::new() }
    }
}

impl Desk for ProcessDesk<'_> {
    fn tell(&mut self, effect: Effect) {
        if let Effect::Status { text } | Effect::Outcome { text, .. } = &effect {
            (self.link.up)(What::Status(text.clone()));
        }
        if effect == Effect::Scheduled {
            (self.link.up)(What::Scheduled);
        }
        if let Effect::Task(news) = effect {
            (self.link.up)(What::Task(news));
            return;
        }
        // Work that is on its way, as that of a branch.
        self.started += usize::from(matches!(effect, Effect::Delegate { .. }));
        self.effects.push(effect);
    }

    fn ask(&mut self, ask: Ask) -> Result<Answer, ToolError> {
        let (answer, answered) = bounded(1);
        let (task, interactive) = match &ask {
            Ask::Branch { description } => (description.clone(), false),
            Ask::SpawnWorker { task, interactive, .. } => (task.clone(), *interactive),
            Ask::Route { .. } | Ask::Cancel { .. } => Default::default(),
        };
        (self.link.up)(What::Asked { ask, origin: self.origin.clone(), answer });
        let result = select! {
            recv(answered) -> answer => answer.map_err(|_| RecvTimeoutError::Disconnected),
            recv(self.link.cancel.receiver()) -> _ => return Err(ToolError::Cancelled),
            default(ASK_TIMEOUT) => Err(RecvTimeoutError::Timeout),
        };
        match result {
            Ok(answer) => {
                if let Answer::Started(process) = answer {
                    let answers = self.origin.answers.clone();
                    self.runs.push(Started { process, task, interactive, answers });
                    self.started += 1;
                }
                Ok(answer)
            }
            Err(_) => Err(ToolError::TimedOut(ASK_TIMEOUT.as_secs())),
        }
    }
}
