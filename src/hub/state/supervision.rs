//! Branches and workers that do nothing any more: who shows no sign of life for too long is ended like one whose
//! time is up. Asked is the process's own record, so that a busy hub takes nobody for stuck.

use std::time::Duration;

use serde_json::json;

use super::{Action, Hub, ProcessKey, TimerKey};
use crate::cortex::NewCortexEvent;
use crate::event::StopReason;
use crate::id::ProcessKind;

/// A process that was told to stop and has not ended after this time holds its place, which is noted.
const STOP_REACTION: Duration = Duration::from_secs(30);

impl Hub {
    /// How long it may be quiet; none for what is not supervised.
    fn patience(&self, key: &ProcessKey) -> Option<Duration> {
        let limits = &self.agents.get(&key.0)?.limits;
        match key.1.kind {
            ProcessKind::Worker => Some(limits.cortex.stuck_worker),
            ProcessKind::Branch => Some(limits.branch_timeout),
            _ => None,
        }
        .filter(|_| limits.cortex.enabled)
    }

    /// From its start on.
    pub(super) fn supervise(&mut self, key: &ProcessKey, now: Duration) {
        if let Some(patience) = self.patience(key) {
            self.timers.set(&TimerKey::Supervision(key.clone()), Some(now + patience));
        }
    }

    /// From when it was told to stop.
    pub(super) fn supervise_stop(&mut self, key: &ProcessKey, now: Duration) {
        if self.patience(key).is_some() {
            self.timers.set(&TimerKey::Supervision(key.clone()), Some(now + STOP_REACTION));
        }
    }

    /// It may have been quiet for too long: asks for its signs of life.
    pub(super) fn feel(&mut self, key: &ProcessKey, now: Duration) {
        let Some(process) = self.processes.get(key) else { return };
        if process.stopping {
            let words = format!("{} was told to stop and goes on", key.1);
            self.note_about(key, "process_hangs", words);
        } else if process.waiting {
            // It waits for a person; that has a time-out of its own.
            self.supervise(key, now);
        } else {
            self.actions.push(Action::Feel { agent: key.0.clone(), process: key.1 });
        }
    }

    pub(super) fn felt(&mut self, key: &ProcessKey, quiet: Option<Duration>, now: Duration) {
        let Some(process) = self.processes.get(key).filter(|process| !process.stopping) else { return };
        let (Some(patience), waiting) = (self.patience(key), process.waiting) else { return };
        let quiet = quiet.filter(|_| !waiting).unwrap_or_default();
        if quiet < patience {
            self.timers.set(&TimerKey::Supervision(key.clone()), Some(now + (patience - quiet)));
            return;
        }
        let words = format!("{} did nothing for {} s and is ended", key.1, quiet.as_secs());
        self.note_about(key, "process_stuck", words);
        self.cancel(key, StopReason::Timeout, now);
    }

    fn note_about(&mut self, key: &ProcessKey, event_type: &'static str, words: String) {
        let what = self.processes.get(key).map(|process| process.what.clone()).unwrap_or_default();
        if let Some(agent) = self.agents.get_mut(&key.0) {
            agent.cortex.note(NewCortexEvent::new(event_type, words, json!({ "task": what })));
        }
    }
}
