//! Jobs that run at their time, as the hub sees them: when to look, and a conversation that ends when
//! nothing of it is going on any more.

use super::*;
use crate::agent::{Look, Run, RunEnd};

/// First wait after a look that failed; doubles with every further failure.
const LOOK_RETRY_BASE: Duration = Duration::from_secs(5);
const LOOK_RETRY_MAX: Duration = Duration::from_secs(300);
/// Turns that results may start in one run; a job has no person who would ask for the rest.
pub(super) const MAX_RUN_RETRIGGERS: u32 = 50;
/// How long the end of a run may wait for a full or busy disk before it is begun again.
const END_TIMEOUT: Duration = Duration::from_secs(3600);

/// Whether somebody looks at the agent's jobs right now.
#[derive(Debug, Default)]
pub(super) struct Watch {
    looking: bool,
    /// Something has changed since.
    again: bool,
    failures: u32,
}

/// The run that a conversation is.
#[derive(Debug)]
pub(super) struct JobRun {
    pub(super) execution: i64,
    pub(super) deadline: Duration,
    /// Set when no more turns shall begin.
    end: Option<RunEnd>,
    /// The process that writes the end is at work.
    ending: bool,
    /// The next run of the same job, claimed before we heard of this one's end.
    next: Option<Run>,
}

impl JobRun {
    pub(super) fn is_over(&self) -> bool {
        self.end.is_some()
    }
}

impl Hub {
    pub(super) fn look_everywhere(&mut self) {
        let agents: Vec<_> = self.agents.keys().cloned().collect();
        agents.iter().for_each(|agent| self.look(agent));
    }

    /// One look at a time: what changes in the meantime is looked at afterwards.
    pub(super) fn look(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else { return };
        if agent.watch.looking {
            agent.watch.again = true;
            return;
        }
        agent.watch.looking = true;
        self.timers.set(&TimerKey::Schedule(id.clone()), None);
        self.actions.push(Action::Look { agent: id.clone() });
    }

    /// `None`: it failed.
    pub(super) fn looked(&mut self, id: &AgentId, look: Option<Look>, now: Duration) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.watch.looking = false;
        let again = std::mem::take(&mut agent.watch.again);
        let (runs, next) = match look {
            Some(look) => {
                agent.watch.failures = 0;
                (look.runs, look.next)
            }
            None => {
                let wait = LOOK_RETRY_BASE.saturating_mul(1 << agent.watch.failures.min(16));
                agent.watch.failures += 1;
                (Vec::new(), Some(wait.min(LOOK_RETRY_MAX)))
            }
        };
        self.timers.set(&TimerKey::Schedule(id.clone()), next.map(|wait| now + wait));
        for run in runs {
            self.begin_run(id, run, now);
        }
        if again {
            self.look(id);
        }
    }

    fn begin_run(&mut self, agent: &AgentId, run: Run, now: Duration) {
        let key = (agent.clone(), run.place.conversation.clone(), Lane::Talk);
        if let Some(before) = self.conversations.get_mut(&key).and_then(|found| found.run.as_mut()) {
            before.next = Some(run);
            return;
        }
        let deadline = now + run.timeout;
        let mut conversation = Conversation::new(run.place);
        conversation.newest = run.inbox;
        conversation.run =
            Some(JobRun { execution: run.execution, deadline, end: None, ending: false, next: None });
        self.timers.set(&TimerKey::Run(key.clone()), Some(deadline));
        self.conversations.insert(key.clone(), conversation);
        self.consider(&key, now);
    }

    /// For a run without a turn: the next turn, or its end, or nothing while branches and workers go on.
    pub(super) fn consider_run(&mut self, key: &Key, now: Duration) {
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let Some(run) = &conversation.run else { return };
        if run.ending || !matches!(self.stage, Stage::Running | Stage::Draining) {
            return;
        }
        let due = match (run.is_over(), conversation.next_work(now)) {
            (true, _) => conversation.not_before.filter(|at| *at > now),
            (false, work) => work,
        };
        match due {
            Some(at) if at > now => {
                self.timers.set(&TimerKey::Conversation(key.clone()), Some(at));
                return;
            }
            // What a stop cuts off is for the next start.
            Some(_) if self.stage == Stage::Running => {
                self.queue_turn(key, now);
                return;
            }
            Some(_) => return,
            None => self.timers.set(&TimerKey::Conversation(key.clone()), None),
        }
        if !self.has_processes(key) {
            self.end_run(key, now);
        }
    }

    fn has_processes(&self, key: &Key) -> bool {
        self.processes.iter().any(|(id, process)| id.0 == key.0 && process.conversation == key.1)
    }

    fn end_run(&mut self, key: &Key, now: Duration) {
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let Some(run) = &mut conversation.run else { return };
        run.ending = true;
        let work = Work::RunEnd { execution: run.execution, end: run.end.clone().unwrap_or(RunEnd::Done) };
        let place = conversation.place.clone();
        self.timers.set(&TimerKey::Run(key.clone()), None);
        if let Some(agent) = self.agents.get_mut(&key.0) {
            agent.turns += 1;
        }
        let begin = Begin::new(ProcessKind::Channel, String::new(), END_TIMEOUT);
        self.start(&key.0, place, begin, now, work);
    }

    /// The run's time is up.
    pub(super) fn run_timed_out(&mut self, key: &Key, now: Duration) {
        self.close_run(key, RunEnd::TimedOut, StopReason::Timeout, now);
    }

    /// A turn of the run failed for good.
    pub(super) fn run_failed(&mut self, key: &Key, kind: Kind, reason: String, now: Duration) {
        let end = RunEnd::Failed(kind, reason);
        self.close_run(key, end, StopReason::Asked(String::new()), now);
    }

    /// No more turns; what goes on is stopped. The first reason stands.
    fn close_run(&mut self, key: &Key, end: RunEnd, reason: StopReason, now: Duration) {
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let Some(run) = conversation.run.as_mut().filter(|run| !run.ending) else { return };
        run.end.get_or_insert(end);
        conversation.not_before = None;
        let busy = conversation.turn.is_some() || conversation.queued;
        let going_on: Vec<_> = self
            .processes
            .iter()
            .filter(|(id, process)| id.0 == key.0 && process.conversation == key.1)
            .map(|(id, _)| id.clone())
            .collect();
        for process in going_on {
            self.cancel(&process, reason.clone(), now);
        }
        if !busy {
            self.consider_run(key, now);
        }
    }

    /// True when the channel process that ended was the one that writes the run's end.
    pub(super) fn run_ended(&mut self, key: &Key, how: &How, now: Duration) -> bool {
        let Some(conversation) = self.conversations.get_mut(key) else { return false };
        let Some(run) = conversation.run.as_mut().filter(|run| run.ending) else { return false };
        match how {
            How::Delivered(ring) => {
                let ring = ring.clone();
                self.actions
                    .extend(ring.map(|(instance, conversation)| Action::Ring { instance, conversation }));
            }
            // The disk was full or busy: begin the end again.
            How::Failed(kind, _) if kind.is_retryable() && self.stage == Stage::Running => {
                run.ending = false;
                run.end.get_or_insert(RunEnd::Done);
                conversation.not_before = Some(now + RETRY_MAX);
                self.consider_run(key, now);
                return true;
            }
            // The row says that it is running; the next start knows better.
            how => log::error!("the end of {} was not written: {how:?}", key.1),
        }
        let next = run.next.take();
        self.conversations.remove(key);
        self.timers.set(&TimerKey::Run(key.clone()), None);
        self.timers.set(&TimerKey::Conversation(key.clone()), None);
        self.rescan_if_overflowed();
        // Its end is something that happened.
        self.cortex_changed(&key.0, now);
        if let Some(next) = next {
            self.begin_run(&key.0, next, now);
        }
        true
    }
}
