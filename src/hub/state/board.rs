//! Ready tasks: which of them starts next, and what becomes of a worker whose task is taken back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Begin, Hub, Key, ProcessKey, RETRY_MAX, Stage, TimerKey};
use crate::agent::Work;
use crate::conversation::Place;
use crate::effect::{ReadyTask, TaskNews};
use crate::event::{How, StopReason};
use crate::id::{AgentId, ConversationId, InstanceId, ProcessKind};
use crate::message::Lane;

/// Ready tasks in memory. More wait in the database until these have become fewer.
pub const MAX_READY_TASKS: usize = 128;
/// Where a task works that was born in no conversation.
const NOWHERE: &str = "tasks";
/// Why a worker stops whose task was taken back; part of what it writes as its end.
const WITHDRAWN: &str = "its task was taken back";

/// The tasks of one agent that may start. The database decides in the end: a claim may fail.
#[derive(Debug, Default)]
pub(super) struct Board {
    ready: BTreeMap<u64, Card>,
    overflowed: bool,
    /// No task starts before, because the last one could not.
    not_before: Duration,
}

/// A task, and when the pause after its last failure is over.
#[derive(Debug)]
struct Card {
    task: ReadyTask,
    due: Duration,
}

impl Board {
    fn insert(&mut self, task: ReadyTask, now: Duration) {
        if self.ready.get(&task.number).is_some_and(|known| known.task.revision > task.revision) {
            return;
        }
        let due = now + task.wait;
        self.ready.insert(task.number, Card { task, due });
        // What pauses leaves a full board first.
        let last = |card: &Card| (card.due.saturating_sub(now), order(&card.task));
        if self.ready.len() > MAX_READY_TASKS
            && let Some((_, (_, number))) = self.ready.values().map(last).max()
        {
            self.ready.remove(&number);
            self.overflowed = true;
        }
    }

    /// When there is something to start, if not now.
    fn next_due(&self) -> Option<Duration> {
        self.ready.values().map(|card| card.due).min().map(|due| due.max(self.not_before))
    }

    #[cfg(test)]
    pub(super) fn holds(&self, number: u64) -> bool {
        self.ready.contains_key(&number)
    }

    fn withdraw(&mut self, number: u64, revision: u64) {
        if self.ready.get(&number).is_some_and(|known| known.task.revision < revision) {
            self.ready.remove(&number);
        }
    }
}

/// What comes first has the smaller value.
fn order(task: &ReadyTask) -> (u8, u64) {
    (task.urgency, task.number)
}

fn place_of(task: &ReadyTask) -> Place {
    task.place.clone().unwrap_or_else(|| Place {
        conversation: ConversationId::new(NOWHERE),
        instance: InstanceId::new(NOWHERE),
        direct: true,
        name: NOWHERE.to_owned(),
    })
}

impl Hub {
    pub(super) fn on_news(&mut self, agent_id: &AgentId, news: TaskNews, now: Duration) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        match news {
            TaskNews::Answered => self.carry(agent_id),
            TaskNews::Ready(_) if self.stage != Stage::Running => {}
            TaskNews::Ready(task) => {
                agent.board.insert(task, now);
                self.start_tasks(agent_id, now);
            }
            TaskNews::Withdrawn { number, revision } => {
                agent.board.withdraw(number, revision);
                let gone: Vec<ProcessKey> = self
                    .processes
                    .iter()
                    .filter(|(key, process)| {
                        let before = |task: &ReadyTask| task.number == number && task.revision < revision;
                        key.0 == *agent_id && process.task.as_ref().is_some_and(before)
                    })
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in gone {
                    self.cancel(&key, StopReason::Asked(WITHDRAWN.to_owned()), now);
                }
            }
        }
    }

    /// Gives ready tasks to workers, the most urgent first, as far as the limits allow: as many as one
    /// conversation may have, in the agent and in the conversation that a task was born in.
    pub(super) fn start_tasks(&mut self, agent_id: &AgentId, now: Duration) {
        while self.stage == Stage::Running
            && let Some(task) = self.next_task(agent_id, now)
        {
            let place = place_of(&task);
            let key = (agent_id.clone(), place.conversation.clone(), Lane::Talk);
            // Its result needs the conversation; without room for that the task is read again later.
            if task.place.is_some() && !self.know(&key, place.clone()) {
                continue;
            }
            let limits = self.agents.get(agent_id).map(|agent| agent.limits.clone()).unwrap_or_default();
            let what = format!("task #{}: {}", task.number, task.title);
            let work = Work::Task { number: task.number, revision: task.revision, what: what.clone() };
            let begin =
                Begin { task: Some(task), ..Begin::new(ProcessKind::Worker, what, limits.worker_timeout) };
            self.start(agent_id, place, begin, now, work);
        }
        if let Some(agent) = self.agents.get_mut(agent_id)
            && agent.board.ready.is_empty()
            && std::mem::take(&mut agent.board.overflowed)
        {
            self.actions.push(super::Action::Rescan { agent: agent_id.clone() });
        }
    }

    /// Takes the task that starts now off the board.
    fn next_task(&mut self, agent_id: &AgentId, now: Duration) -> Option<ReadyTask> {
        let agent = self.agents.get(agent_id)?;
        let next = agent.board.next_due()?;
        if now < next {
            self.timers.set(&TimerKey::Tasks(agent_id.clone()), Some(next));
            return None;
        }
        let limit = agent.limits.max_concurrent_workers;
        let workers = || {
            self.processes
                .iter()
                .filter(|(key, _)| key.0 == *agent_id && key.1.kind == ProcessKind::Worker)
                .map(|(_, process)| process)
        };
        if workers().filter(|process| process.task.is_some()).count() >= limit {
            return None;
        }
        let has_room = |task: &&ReadyTask| {
            let conversation = place_of(task).conversation;
            workers().filter(|process| process.conversation == conversation).count() < limit
        };
        let due = agent.board.ready.values().filter(|card| card.due <= now).map(|card| &card.task);
        let Some((_, number)) = due.filter(has_room).map(order).min() else {
            // What has no room starts when another ends; what pauses, when its pause is over.
            let later = agent.board.ready.values().map(|card| card.due).filter(|due| *due > now).min();
            self.timers.set(&TimerKey::Tasks(agent_id.clone()), later);
            return None;
        };
        self.agents.get_mut(agent_id)?.board.ready.remove(&number).map(|card| card.task)
    }

    /// The worker of a task has said its last word.
    pub(super) fn task_ended(&mut self, key: &Key, task: ReadyTask, how: &How, now: Duration) {
        if let Some(conversation) = self.conversations.get_mut(key)
            && task.by_person
        {
            // What a person has approved may be answered like what a person has said.
            conversation.retriggers = 0;
        }
        // It may never have begun (no thread, a stop while the disk was full). If it did, the claim fails.
        if matches!(how, How::Failed(kind, _) if kind.is_retryable())
            && self.stage == Stage::Running
            && let Some(agent) = self.agents.get_mut(&key.0)
        {
            agent.board.insert(ReadyTask { wait: Duration::ZERO, ..task }, now);
            agent.board.not_before = now + RETRY_MAX;
        }
    }
}
