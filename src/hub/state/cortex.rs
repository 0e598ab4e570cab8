//! The cortex of an agent, as the hub sees it: one errand at a time, beside everything else, and only after
//! a change. A timer is set while there is something to do, and no other: an idle daemon has none.

use std::collections::BTreeMap;
use std::time::Duration;

use super::observation::Seen;
use super::{Begin, Hub, ProcessKey, Stage, TimerKey};
use crate::agent::{Troubles, Work};
use crate::command::CortexReport;
use crate::conversation::Place;
use crate::cortex::NewCortexEvent;
use crate::error::Kind;
use crate::event::{Errand, How};
use crate::id::{AgentId, ConversationId, InstanceId, ProcessId, ProcessKind};

/// What comes within this time after a change is looked at together with it.
pub const CORTEX_DEBOUNCE: Duration = Duration::from_secs(2);
/// An errand that takes longer is stopped and counts as failed; within it are one model call or a look at
/// all memories.
pub const ERRAND_TIMEOUT: Duration = Duration::from_secs(600);
/// First wait after a failure; doubles up to the second.
const RETRY_BASE: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);
/// The same for what puts together what happened.
const SYNTHESIS_RETRY_MAX: Duration = Duration::from_secs(300);
/// How long an errand rests that has failed too often. After that it needs a new change.
pub const CORTEX_REST: Duration = Duration::from_secs(1800);
/// Events that wait to be written by the next errand.
const NOTES_MAX: usize = 32;
/// Where the cortex works: in no conversation.
const NOWHERE: &str = "cortex";

/// How far an agent has come since the start. Nothing is refused in any of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Warmth {
    #[default]
    Cold,
    Warming,
    Warm,
    /// The last upkeep failed.
    Degraded,
}

impl Warmth {
    fn as_str(self) -> &'static str {
        match self {
            Warmth::Cold => "cold",
            Warmth::Warming => "warming",
            Warmth::Warm => "warm",
            Warmth::Degraded => "degraded",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Cortex {
    chores: BTreeMap<Errand, Chore>,
    running: Option<(ProcessId, Errand)>,
    /// When the last upkeep began.
    last_tended: Option<Duration>,
    warmth: Warmth,
    /// When the warm-up began, and how long it took.
    since: Option<Duration>,
    warm_after: Option<Duration>,
    /// Turns that began before it was warm.
    cold_turns: u64,
    notes: Vec<NewCortexEvent>,
    pub(super) seen: Seen,
}

#[derive(Debug, Default)]
struct Chore {
    /// Not before.
    wanted: Option<Duration>,
    /// Failures in a row.
    failures: u32,
    /// A failure keeps it from being begun until then.
    not_before: Duration,
}

impl Chore {
    fn due(&self) -> Option<Duration> {
        self.wanted.map(|at| at.max(self.not_before))
    }

    /// The earlier wish counts.
    fn want(&mut self, at: Duration) {
        self.wanted = Some(self.wanted.map_or(at, |known| known.min(at)));
    }

    /// True when it rests from now on.
    fn fail(&mut self, again: bool, threshold: u32, retry_max: Duration, now: Duration) -> bool {
        self.failures += 1;
        if again && self.failures < threshold {
            let wait = RETRY_BASE.saturating_mul(1 << (self.failures - 1).min(16)).min(retry_max);
            (self.wanted, self.not_before) = (Some(now), now + wait);
            return false;
        }
        (self.wanted, self.not_before) = (None, now + CORTEX_REST);
        true
    }
}

impl Cortex {
    /// The next errand and when it is due; of several at once the first by kind.
    fn next(&self) -> Option<(Duration, Errand)> {
        self.chores.iter().filter_map(|(errand, chore)| Some((chore.due()?, *errand))).min()
    }

    pub(super) fn note(&mut self, event: NewCortexEvent) {
        // What does not fit is more of the same.
        if self.notes.len() < NOTES_MAX {
            self.notes.push(event);
        }
    }

    /// Whoever has looked says anew when there is something to put together; what is tried again stays.
    fn forget_syntheses(&mut self, now: Duration) {
        let syntheses = self.chores.iter_mut().filter(|(errand, _)| errand.is_synthesis());
        syntheses.filter(|(_, chore)| chore.not_before <= now).for_each(|(_, chore)| chore.wanted = None);
    }

    /// Errands that have failed, and how long they rest still.
    fn resting(&self, now: Duration) -> impl Iterator<Item = (&'static str, Duration)> {
        let rests = move |chore: &Chore| chore.not_before > now && chore.failures > 0;
        let resting = self.chores.iter().filter(move |(_, chore)| rests(chore));
        resting.map(move |(errand, chore)| (errand.as_str(), chore.not_before - now))
    }

    #[cfg(test)]
    pub(super) fn noted(&self) -> impl Iterator<Item = &'static str> {
        self.notes.iter().map(|event| event.event_type)
    }

    /// A turn begins.
    pub(super) fn turn_begins(&mut self) {
        self.cold_turns += u64::from(self.warmth != Warmth::Warm);
    }
}

impl Hub {
    /// Begins the warm-up of those that are cold.
    pub(super) fn warm_up(&mut self, now: Duration) {
        let cold: Vec<_> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.cortex.warmth == Warmth::Cold && agent.cortex.since.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for agent in cold {
            if let Some(agent) = self.agents.get_mut(&agent) {
                agent.cortex.since = Some(now);
            }
            self.cortex_changed(&agent, now);
        }
    }

    /// The clock was set, or the machine has slept: what waits for a time of day is looked at again.
    pub(super) fn cortex_clock_changed(&mut self, now: Duration) {
        let waits = |cortex: &Cortex| {
            cortex.chores.iter().any(|(errand, chore)| errand.is_synthesis() && chore.wanted.is_some())
        };
        let waiting = self.agents.iter().filter(|(_, agent)| waits(&agent.cortex));
        let waiting: Vec<_> = waiting.map(|(id, _)| id.clone()).collect();
        waiting.iter().for_each(|agent| self.cortex_changed(agent, now));
    }

    /// Something that the cortex looks after may be another.
    pub(super) fn cortex_changed(&mut self, id: &AgentId, now: Duration) {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else { return };
        let config = &agent.limits.cortex;
        if !config.enabled {
            return;
        }
        let earliest = agent.cortex.last_tended.map_or(Duration::ZERO, |last| last + config.tick_interval);
        let chore = agent.cortex.chores.entry(Errand::Tend).or_default();
        chore.want((now + CORTEX_DEBOUNCE).max(earliest));
        self.arm_cortex(id);
    }

    /// A timer for what is due next, unless something runs: its end looks again.
    fn arm_cortex(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        let idle = agent.cortex.running.is_none() && agent.limits.cortex.enabled;
        let next = agent.cortex.next().filter(|_| idle && self.stage == Stage::Running);
        self.timers.set(&TimerKey::Cortex(id.clone()), next.map(|(at, _)| at));
    }

    /// A time may have come.
    pub(super) fn cortex_due(&mut self, id: &AgentId, now: Duration) {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else { return };
        let cortex = &mut agent.cortex;
        if cortex.running.is_some() || !agent.limits.cortex.enabled {
            return;
        }
        let Some((_, errand)) = cortex.next().filter(|(at, _)| *at <= now) else {
            return self.arm_cortex(id);
        };
        if let Some(chore) = cortex.chores.get_mut(&errand) {
            chore.wanted = None;
        }
        let mut notes = Vec::new();
        if errand == Errand::Tend {
            cortex.last_tended = Some(now);
            notes = std::mem::take(&mut cortex.notes);
            if cortex.warmth == Warmth::Cold {
                cortex.warmth = Warmth::Warming;
            }
        }
        let begin = Begin::new(ProcessKind::Cortex, errand.as_str().to_owned(), ERRAND_TIMEOUT);
        let started = self.start(id, nowhere(), begin, now, Work::Cortex { errand, notes });
        if let Some(agent) = self.agents.get_mut(id) {
            agent.cortex.running = started.map(|process| (process, errand));
        }
    }

    pub(super) fn cortex_ended(&mut self, key: &ProcessKey, how: How, now: Duration) {
        if self.thread_ended(key, &how, now) {
            // It may have changed memories and tasks.
            return self.cortex_changed(&key.0, now);
        }
        let Some(agent) = self.agents.get_mut(&key.0) else { return };
        let threshold = agent.limits.cortex.circuit_breaker_threshold;
        let tick = agent.limits.cortex.tick_interval;
        let cortex = &mut agent.cortex;
        let Some((_, errand)) = cortex.running.take_if(|(process, _)| *process == key.1) else { return };
        let chore = cortex.chores.entry(errand).or_default();
        match how {
            How::Tended(wants) => {
                (chore.failures, chore.not_before) = (0, Duration::ZERO);
                if errand == Errand::Tend || errand.is_synthesis() {
                    cortex.forget_syntheses(now);
                }
                for (errand, wait) in wants {
                    // One pass does not call for the next one at once.
                    let wait = if errand == Errand::Tend { wait.max(tick) } else { wait };
                    cortex.chores.entry(errand).or_default().want_unless_resting(now, wait);
                }
                if errand == Errand::Tend {
                    cortex.warm_after = cortex.warm_after.or(cortex.since.map(|since| now - since));
                    cortex.warmth = Warmth::Warm;
                }
            }
            // A stop of the daemon.
            How::Cancelled if self.stage != Stage::Running => return,
            how => {
                // Nobody mends a wrong key by trying again.
                let again = !matches!(how, How::Failed(Kind::Auth | Kind::NotFound | Kind::Invalid, _));
                let retry_max = if errand.is_synthesis() { SYNTHESIS_RETRY_MAX } else { RETRY_MAX };
                let rests = chore.fail(again, threshold, retry_max, now);
                let words = match &how {
                    How::Failed(_, reason) | How::Panicked(reason) => reason.clone(),
                    other => format!("{other:?}"),
                };
                if errand == Errand::Tend {
                    cortex.warmth = Warmth::Degraded;
                }
                if rests {
                    let summary = format!("{} has failed and rests: {words}", errand.as_str());
                    cortex.note(NewCortexEvent::new("errand_failed", summary, serde_json::Value::Null));
                }
            }
        }
        self.arm_cortex(&key.0);
    }

    /// With new limits: what was switched on begins.
    pub(super) fn cortex_reloaded(&mut self, id: &AgentId, now: Duration) {
        self.cortex_changed(id, now);
        self.arm_cortex(id);
    }

    /// What an operator is to know who asks how the agent does.
    pub(super) fn troubles_of(&self, id: &AgentId, now: Duration) -> Troubles {
        let Some(agent) = self.agents.get(id) else { return Troubles::default() };
        let resting = agent.cortex.resting(now).map(|(errand, left)| (errand.to_owned(), left)).collect();
        Troubles { failing: agent.cortex.seen.tripped(), resting }
    }

    pub(super) fn cortex_reports(&self, now: Duration) -> Vec<CortexReport> {
        let report = |(id, agent): (&AgentId, &super::Agent)| {
            let cortex = &agent.cortex;
            let resting = |(errand, left): (&str, Duration)| format!("{errand} for {} s", left.as_secs());
            CortexReport {
                agent: id.to_string(),
                state: if agent.limits.cortex.enabled { cortex.warmth.as_str() } else { "off" }.to_owned(),
                running: cortex.running.map(|(_, errand)| errand.as_str().to_owned()),
                resting: cortex.resting(now).map(resting).collect(),
                chatting: agent.threads.busy().is_some(),
                warm_after_ms: cortex
                    .warm_after
                    .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                turns_while_cold: cortex.cold_turns,
                observed: cortex.seen.report(now),
            }
        };
        self.agents.iter().map(report).collect()
    }
}

impl Chore {
    /// What has failed too often is not begun again just because somebody still sees that it is worth while.
    fn want_unless_resting(&mut self, now: Duration, wait: Duration) {
        if self.not_before <= now {
            self.want(now + wait);
        }
    }
}

fn nowhere() -> Place {
    Place {
        conversation: ConversationId::new(NOWHERE),
        instance: InstanceId::new(NOWHERE),
        direct: true,
        name: NOWHERE.to_owned(),
    }
}
