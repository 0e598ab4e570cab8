//! Threads of the cortex: one answer at a time in the whole agent, to what the operator writes or to results of
//! workers that were started for it. A timer is set while results wait, and no other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Begin, Hub, ProcessKey, RETRIGGER_MAX_WAIT, Stage, TimerKey};
use crate::agent::{Chat, Work};
use crate::conversation::Place;
use crate::effect::{Answer, Refusal};
use crate::event::How;
use crate::id::{AgentId, ConversationId, ProcessId, ProcessKind};

/// An answer to the operator has as long as a worker, and at least this.
const TIMEOUT_LEAST: Duration = Duration::from_secs(60);
/// First wait after results that could not be stored; doubles up to the second.
const RETRY_BASE: Duration = Duration::from_secs(30);
const RETRY_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Threads {
    /// The thread that is answered, and by whom.
    answering: Option<(ProcessId, String)>,
    /// Those with results that wait or workers that run; all others are forgotten.
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// When results are told, and when the first of them came.
    due: Option<Duration>,
    since: Option<Duration>,
    /// Answers to results since the operator wrote.
    retriggers: u32,
    failures: u32,
}

impl Threads {
    pub(super) fn busy(&self) -> Option<ProcessId> {
        self.answering.as_ref().map(|(process, _)| *process)
    }

    fn next(&self) -> Option<(Duration, &String)> {
        self.waiting.iter().filter_map(|(thread, waiting)| Some((waiting.due?, thread))).min()
    }
}

impl Hub {
    /// Has a message of the operator answered, unless another is.
    pub(super) fn cortex_chat(
        &mut self,
        id: &AgentId,
        thread: String,
        channel: Option<ConversationId>,
        message: String,
        now: Duration,
    ) -> Answer {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else {
            return Answer::Refused(Refusal::Stopping);
        };
        if let Some(busy) = agent.threads.busy() {
            return Answer::Refused(Refusal::Busy(busy));
        }
        if let Some(waiting) = agent.threads.waiting.get_mut(&thread) {
            waiting.retriggers = 0;
        }
        let chat = Chat { thread, channel, message: Some(message), ..Chat::default() };
        self.answer_thread(id, chat, now).map_or(Answer::Refused(Refusal::Stopping), Answer::Started)
    }

    fn answer_thread(&mut self, id: &AgentId, mut chat: Chat, now: Duration) -> Option<ProcessId> {
        chat.running = self.running_of(id, now);
        chat.running.retain(|(_, running)| running.process.kind.is_told_of());
        chat.running.truncate(Chat::RUNNING_MAX);
        let agent = self.agents.get_mut(id)?;
        // It reads all results that wait.
        if let Some(waiting) = agent.threads.waiting.get_mut(&chat.thread) {
            (waiting.due, waiting.since) = (None, None);
        }
        let timeout = agent.limits.worker_timeout.max(TIMEOUT_LEAST);
        let (thread, place) = (chat.thread.clone(), Place::of_thread(&chat.thread));
        let begin = Begin::new(ProcessKind::Cortex, format!("chat {thread}"), timeout);
        let process = self.start(id, place, begin, now, Work::CortexChat(chat))?;
        self.agents.get_mut(id)?.threads.answering = Some((process, thread));
        Some(process)
    }

    /// A worker of this thread has ended, or a start found its result. Others may come soon.
    pub(super) fn thread_results(&mut self, id: &AgentId, thread: &str, now: Duration) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let waiting = agent.threads.waiting.entry(thread.to_owned()).or_default();
        let since = *waiting.since.get_or_insert(now);
        let debounce = agent.limits.retrigger_debounce;
        waiting.due = Some((now + debounce).min(since + RETRIGGER_MAX_WAIT.max(debounce)));
        self.arm_threads(id);
    }

    /// A timer for what is due next, unless something is answered: its end looks again.
    fn arm_threads(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get(id) else { return };
        let idle = agent.threads.busy().is_none() && self.stage == Stage::Running;
        let next = agent.threads.next().filter(|_| idle);
        self.timers.set(&TimerKey::Threads(id.clone()), next.map(|(at, _)| at));
    }

    /// A time may have come.
    pub(super) fn threads_due(&mut self, id: &AgentId, now: Duration) {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else { return };
        let (threads, most) = (&mut agent.threads, agent.limits.max_retriggers);
        if threads.busy().is_some() {
            return;
        }
        let due = threads.next().filter(|(at, _)| *at <= now).map(|(_, thread)| thread.clone());
        let Some(thread) = due else { return self.arm_threads(id) };
        let mut absorb = false;
        if let Some(waiting) = threads.waiting.get_mut(&thread) {
            absorb = waiting.retriggers >= most;
            waiting.retriggers += 1;
        }
        self.answer_thread(id, Chat { thread, absorb, ..Chat::default() }, now);
    }

    /// True when it was an answer in a thread.
    pub(super) fn thread_ended(&mut self, key: &ProcessKey, how: &How, now: Duration) -> bool {
        let Some(agent) = self.agents.get_mut(&key.0) else { return false };
        let ended = agent.threads.answering.take_if(|(process, _)| *process == key.1);
        let Some((_, thread)) = ended else { return false };
        let again = match how {
            How::Turned { more, .. } => more.then_some(Duration::ZERO),
            // What waits may have been left; a look that finds nothing costs nothing.
            _ => {
                let failures = agent.threads.waiting.get(&thread).map_or(0, |waiting| waiting.failures);
                Some(RETRY_BASE.saturating_mul(1 << failures.min(16)).min(RETRY_MAX))
            }
        };
        if let Some(wait) = again {
            let waiting = agent.threads.waiting.entry(thread.clone()).or_default();
            waiting.failures += u32::from(!wait.is_zero());
            // Nobody has told them: it was no answer to results.
            waiting.retriggers = waiting.retriggers.saturating_sub(u32::from(!wait.is_zero()));
            waiting.due = Some(waiting.due.map_or(now + wait, |due| due.min(now + wait)));
        } else if let Some(waiting) = agent.threads.waiting.get_mut(&thread) {
            waiting.failures = 0;
        }
        self.keep_thread(&key.0, thread);
        self.arm_threads(&key.0);
        true
    }

    /// Of a thread in which nothing runs or waits nothing has to be known; in which something runs, how often it
    /// goes on by itself.
    fn keep_thread(&mut self, id: &AgentId, thread: String) {
        let here = Place::of_thread(&thread).conversation;
        let mut workers = self.processes.iter().filter(|(key, _)| key.0 == *id);
        let works = workers.any(|(_, process)| process.conversation == here);
        let Some(agent) = self.agents.get_mut(id) else { return };
        let waits = agent.threads.waiting.get(&thread).is_some_and(|waiting| waiting.due.is_some());
        if works {
            agent.threads.waiting.entry(thread).or_default();
        } else if !waits {
            agent.threads.waiting.remove(&thread);
        }
    }
}
