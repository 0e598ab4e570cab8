//! What is expected of models and of the cortex, checked while the daemon runs: when a model may be asked, that
//! errands of one agent never overlap or come too early, and that nothing is asked for that is written already.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spacebot::agent::{Job, Work};
use spacebot::conversation::{Conversations, Window};
use spacebot::event::{Errand, How};
use spacebot::hub::state::CORTEX_REST;
use spacebot::id::{AgentId, ConversationId, ProcessId};
use spacebot::thread::Cancel;

use crate::breaker::{Breaker, Caller, Said};
use crate::start::limits;

const BACKOFF: Duration = Duration::from_secs(30);
/// Failures in a row after which an errand rests.
const THRESHOLD: u32 = 3;

/// The process that runs on this thread.
#[derive(Clone)]
pub struct Running {
    pub agent: AgentId,
    pub process: ProcessId,
    pub cancel: Cancel,
    pub errand: Option<Errand>,
    /// Tells apart what an errand is about where its words do not.
    pub about: String,
    /// What a model was asked for an errand.
    pub asked: Option<String>,
    /// Of a compactor that has asked no model yet: the window that it found.
    pub found: Option<(Conversations, ConversationId, Window)>,
}

thread_local! {
    pub static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

impl Running {
    pub fn now() -> Option<Self> {
        RUNNING.with_borrow(Clone::clone)
    }

    pub fn caller(&self) -> Caller {
        format!("{}/{}", self.agent, self.process)
    }

    fn key(&self, words: &str) -> String {
        format!("{} {:?} {} {words}", self.agent, self.errand, self.about)
    }
}

#[derive(Default)]
struct State {
    breakers: BTreeMap<String, Breaker>,
    /// What the cortex of an agent is at: an errand, and an answer to the operator.
    errands: BTreeMap<AgentId, ProcessId>,
    chats: BTreeMap<AgentId, ProcessId>,
    /// Failures in a row, and when the next try may come.
    failures: BTreeMap<(AgentId, Errand), (u32, Duration)>,
    /// What models have written for errands, by what they were asked; also before the last crash.
    written: BTreeSet<String>,
    broken: Vec<String>,
    counts: BTreeMap<&'static str, usize>,
}

#[derive(Default)]
pub struct Watch(Mutex<State>);

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new life of the daemon knows nothing of rests.
    pub fn begin(&self) {
        let mut state = self.state();
        for breaker in std::mem::take(&mut state.breakers).values() {
            let counts = [
                ("probes of models", breaker.probes),
                ("rests that providers want", breaker.limited),
                ("rests of what is to be mended", breaker.refused),
            ];
            counts.into_iter().for_each(|(what, more)| *state.counts.entry(what).or_default() += more);
        }
        state.errands.clear();
        state.chats.clear();
        state.failures.clear();
    }

    pub fn count(&self, what: &'static str) {
        *self.state().counts.entry(what).or_default() += 1;
    }

    pub fn breaks(&self, promise: String) {
        self.state().broken.push(promise);
    }

    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.state().counts.clone()
    }

    pub fn check(&self) -> Result<(), String> {
        self.state().broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }

    pub fn ailing(&self) -> BTreeSet<String> {
        let state = self.state();
        state.breakers.iter().filter(|(_, breaker)| breaker.is_open()).map(|(name, _)| name.clone()).collect()
    }

    /// A model is asked.
    pub fn asked(&self, model: &str, running: &Running, now: Duration) {
        let mut state = self.state();
        let breaker = state.breakers.entry(model.to_owned()).or_default();
        if let Err(error) = breaker.asked(&running.caller(), now) {
            state.broken.push(format!("the breaker of {model}: {error}"));
        }
    }

    pub fn told(&self, model: &str, running: &Running, said: Said, now: Duration) {
        let said = if running.cancel.is_cancelled() { Said::Nothing } else { said };
        let mut state = self.state();
        state.breakers.entry(model.to_owned()).or_default().told(&running.caller(), said, now);
    }

    /// A model is asked these words for an errand.
    pub fn asked_for(&self, running: &Running, words: &str) {
        let mut state = self.state();
        *state.counts.entry("model calls of errands").or_default() += 1;
        if state.written.contains(&running.key(words)) {
            let error = format!("P4: {:?} of {} is written already: {words}", running.errand, running.agent);
            state.broken.push(error);
        }
    }

    /// A compactor asks for a summary of lines: they have not left. (Without a summary they do so only where the window
    /// is full.)
    pub fn compacts(&self, running: &Running) {
        let found =
            RUNNING.with_borrow_mut(|running| running.as_mut().and_then(|running| running.found.take()));
        let Some((conversations, conversation, found)) = found else { return };
        let now = conversations.window(&conversation).expect("read");
        let is_full = found.lines.len() * 100 >= limits().history_messages * 95;
        if !is_full && found.summaries.len() != now.summaries.len() {
            let error = format!("{} swaps before it has a summary", running.caller());
            self.state().broken.push(error);
        }
    }

    /// The hub starts something.
    pub fn starts(&self, agent: &AgentId, job: &Job, now: Duration) {
        let mut state = self.state();
        if matches!(&job.work, Work::Turn(turn) if turn.absorb) {
            *state.counts.entry("turns over the retrigger limit").or_default() += 1;
        }
        let error = match &job.work {
            Work::Cortex { errand, .. } => {
                let not_before =
                    state.failures.get(&(agent.clone(), *errand)).map_or(Duration::ZERO, |one| one.1);
                let early = not_before.saturating_sub(now);
                let beside = state.errands.insert(agent.clone(), job.process);
                match beside {
                    Some(beside) => Some(format!("{} of {agent} runs beside {beside}", errand.as_str())),
                    None if !early.is_zero() => {
                        Some(format!("{} of {agent} comes {early:?} too early", errand.as_str()))
                    }
                    None => None,
                }
            }
            Work::CortexChat(..) => state
                .chats
                .insert(agent.clone(), job.process)
                .map(|beside| format!("two answers to the operator of {agent} beside {beside}")),
            _ => None,
        };
        state.broken.extend(error);
    }

    /// It has ended; the hub does not know yet.
    pub fn ended(&self, running: &Running, how: &How, now: Duration) {
        let mut state = self.state();
        state.chats.retain(|_, process| *process != running.process);
        let Some(errand) = running.errand else { return };
        state.errands.remove(&running.agent);
        let entry = (running.agent.clone(), errand);
        if let How::Tended(_) = how {
            state.failures.remove(&entry);
            state.written.extend(running.asked.as_ref().map(|words| running.key(words)));
            return;
        }
        let (failures, not_before) = state.failures.entry(entry).or_default();
        *failures += 1;
        let most = Duration::from_secs(if errand.is_synthesis() { 300 } else { 600 });
        let wait = (BACKOFF * 2_u32.pow(*failures - 1)).min(most);
        let rests = *failures >= THRESHOLD;
        *not_before = now + if rests { CORTEX_REST } else { wait };
        if rests {
            *state.counts.entry("errands that rest").or_default() += 1;
        }
    }
}
