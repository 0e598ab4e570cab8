//! What the turns ask for: branches, workers, a message for one of them, the end of one.

use super::*;

impl Hub {
    pub(super) fn on_ask(
        &mut self,
        key: &ProcessKey,
        ask: Ask,
        origin: Origin,
        to: Sender<Answer>,
        now: Duration,
    ) {
        let refused = |refusal| Answer::Refused(refusal);
        let answer = match ask {
            _ if self.stage != Stage::Running => refused(Refusal::Stopping),
            Ask::SpawnWorker { .. } if self.is_chat(key) => self.spawn_for_thread(key, ask, origin, now),
            Ask::Cancel { process, reason } if self.is_chat(key) => {
                self.stop_asked(key, (process, reason), now)
            }
            _ if key.1.kind != ProcessKind::Channel => refused(Refusal::Forbidden),
            Ask::Branch { description } => self.spawn_branch(key, description, origin, now),
            Ask::SpawnWorker { task, interactive, task_type } => {
                let work = Work::Worker { task: task.clone(), interactive, task_type, origin };
                self.spawn_worker(key, task, work, now)
            }
            Ask::Route { worker } => match self.is_routable(key, worker) {
                true => Answer::Done(worker.to_string()),
                false => refused(Refusal::Unknown(worker)),
            },
            Ask::Cancel { process, reason } => self.stop_asked(key, (process, reason), now),
        };
        self.actions.push(Action::Answer { to, answer });
    }

    /// A conversation may stop what it has started; the operator, in a thread, what runs anywhere in the agent.
    fn stop_asked(
        &mut self,
        key: &ProcessKey,
        (process, reason): (ProcessId, String),
        now: Duration,
    ) -> Answer {
        let target = (key.0.clone(), process);
        let may = match self.is_chat(key) {
            true => process.kind.is_told_of() && self.processes.contains_key(&target),
            false => self.is_neighbour(key, &target),
        };
        if !may {
            return Answer::Refused(Refusal::Unknown(process));
        }
        self.cancel(&target, StopReason::Asked(reason), now);
        Answer::Done(process.to_string())
    }

    pub(super) fn spawn_branch(
        &mut self,
        key: &ProcessKey,
        description: String,
        origin: Origin,
        now: Duration,
    ) -> Answer {
        let Some((limits, place)) = self.surroundings(key) else { return Answer::Refused(Refusal::Stopping) };
        if self.count_beside(key, ProcessKind::Branch) >= limits.max_concurrent_branches {
            return Answer::Refused(Refusal::Limit {
                what: "branches",
                limit: limits.max_concurrent_branches,
            });
        }
        let what = description.clone();
        let begin = Begin::new(ProcessKind::Branch, what, limits.branch_wall_clock);
        match self.start(&key.0, place, begin, now, Work::Branch { description, origin }) {
            Some(process) => Answer::Started(process),
            None => Answer::Refused(Refusal::Stopping),
        }
    }

    pub(super) fn spawn_worker(
        &mut self,
        key: &ProcessKey,
        task: String,
        work: Work,
        now: Duration,
    ) -> Answer {
        let Some((limits, place)) = self.surroundings(key) else { return Answer::Refused(Refusal::Stopping) };
        let twin =
            self.beside(key).find(|(id, process)| id.1.kind == ProcessKind::Worker && process.what == task);
        if let Some((twin, _)) = twin {
            return Answer::Refused(Refusal::Duplicate(twin.1));
        }
        if self.count_beside(key, ProcessKind::Worker) >= limits.max_concurrent_workers {
            return Answer::Refused(Refusal::Limit { what: "workers", limit: limits.max_concurrent_workers });
        }
        let begin = Begin::new(ProcessKind::Worker, task, limits.worker_timeout);
        match self.start(&key.0, place, begin, now, work) {
            Some(process) => Answer::Started(process),
            None => Answer::Refused(Refusal::Stopping),
        }
    }

    fn is_chat(&self, key: &ProcessKey) -> bool {
        self.agents.get(&key.0).is_some_and(|agent| agent.threads.busy() == Some(key.1))
    }

    /// A worker of a thread works for itself: nobody can write to it.
    fn spawn_for_thread(&mut self, key: &ProcessKey, ask: Ask, origin: Origin, now: Duration) -> Answer {
        match ask {
            Ask::SpawnWorker { task, interactive: false, task_type } => {
                let work = Work::Worker { task: task.clone(), interactive: false, task_type, origin };
                self.spawn_worker(key, task, work, now)
            }
            _ => Answer::Refused(Refusal::Forbidden),
        }
    }

    pub(super) fn surroundings(&self, key: &ProcessKey) -> Option<(LimitsConfig, Place)> {
        let process = self.processes.get(key)?;
        if let Some(thread) = Place::thread_of(&process.conversation) {
            return Some((self.agents.get(&key.0)?.limits.clone(), Place::of_thread(thread)));
        }
        let conversation =
            self.conversations.get(&(key.0.clone(), process.conversation.clone(), process.lane))?;
        Some((self.agents.get(&key.0)?.limits.clone(), conversation.place.clone()))
    }

    /// Processes of the same conversation.
    pub(super) fn beside<'a>(
        &'a self,
        key: &'a ProcessKey,
    ) -> impl Iterator<Item = (&'a ProcessKey, &'a Process)> {
        let conversation = self.processes.get(key).map(|process| &process.conversation);
        self.processes
            .iter()
            .filter(move |(id, process)| id.0 == key.0 && Some(&process.conversation) == conversation)
    }

    pub(super) fn count_beside(&self, key: &ProcessKey, kind: ProcessKind) -> usize {
        self.beside(key).filter(|(id, _)| id.1.kind == kind).count()
    }

    pub(super) fn is_neighbour(&self, key: &ProcessKey, target: &ProcessKey) -> bool {
        target.1.kind.is_told_of() && self.beside(key).any(|(id, _)| id == target)
    }

    fn is_routable(&self, key: &ProcessKey, worker: ProcessId) -> bool {
        let target = (key.0.clone(), worker);
        worker.kind == ProcessKind::Worker
            && self.is_neighbour(key, &target)
            && self.processes.get(&target).is_some_and(|process| !process.stopping)
    }

    /// A turn has left messages for these workers. Of one that has ended meanwhile the result says so.
    pub(super) fn routed(&mut self, key: &ProcessKey, workers: Vec<ProcessId>, now: Duration) {
        let Some(conversation) = self.processes.get(key).map(|process| process.conversation.clone()) else {
            return;
        };
        for process in workers {
            let agent = key.0.clone();
            if self.processes.contains_key(&(agent.clone(), process)) {
                self.actions.push(Action::RingProcess { agent, process });
            } else {
                self.results_came(&(agent, conversation.clone(), Lane::Talk), now);
            }
        }
    }

    /// A worker has heard what it waited for: the clock of its work starts anew, waiting does not count.
    pub(super) fn works(&mut self, key: &ProcessKey, now: Duration) {
        let timeout = self.agents.get(&key.0).map_or(Duration::ZERO, |agent| agent.limits.worker_timeout);
        let Some(process) = self.processes.get_mut(key).filter(|process| process.waiting) else { return };
        process.waiting = false;
        // Who was told to stop meanwhile has a stop request and no deadline.
        if !process.stopping {
            process.deadline = now + timeout;
            let deadline = process.deadline;
            self.timers.set(&TimerKey::Process(key.clone()), Some(deadline));
            self.supervise(key, now);
        }
    }

    /// Asks a process to stop, once.
    pub(super) fn cancel(&mut self, key: &ProcessKey, reason: StopReason, now: Duration) {
        let Some(process) = self.processes.get_mut(key) else { return };
        if !process.stopping {
            process.stopping = true;
            self.timers.set(&TimerKey::Process(key.clone()), None);
            self.supervise_stop(key, now);
            self.actions.push(Action::Cancel { agent: key.0.clone(), process: key.1, reason });
        }
    }
}
