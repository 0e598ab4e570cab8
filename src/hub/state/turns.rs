//! The turns of a conversation: when one starts, what it is started with, and what becomes of its end.

use std::time::Duration;

use super::*;

impl Hub {
    /// A message is in the inbox: it reaches the turn that runs, if there is one, between two of its steps;
    /// else it waits for its turn, in company for others to come.
    pub(super) fn arrived(&mut self, key: Key, place: Place, inbox: InboxId, addressed: bool, now: Duration) {
        if !self.know(&key, place) {
            return;
        }
        let coalescing = self.coalescing(&key);
        let Some(conversation) = self.conversations.get_mut(&key) else { return };
        if inbox > conversation.newest {
            conversation.newest = inbox;
            conversation.retriggers = 0;
            if let Some(coalescing) = coalescing {
                conversation.gather(addressed, now, &coalescing);
            }
            if let Some(turn) = conversation.turn.as_ref().filter(|turn| turn.hears) {
                self.actions.push(Action::RingProcess { agent: key.0.clone(), process: turn.process });
            }
        }
        self.consider(&key, now);
    }

    /// Something that was left over, at a start or when there was no room for it.
    pub(super) fn found(
        &mut self,
        key: Key,
        place: Place,
        newest: Option<InboxId>,
        results: bool,
        now: Duration,
    ) {
        if let Some(thread) = Place::thread_of(&key.1) {
            return self.thread_results(&key.0, thread, now);
        }
        if !self.know(&key, place) {
            return;
        }
        if let Some(conversation) = self.conversations.get_mut(&key) {
            if let Some(newest) = newest
                && newest > conversation.newest
            {
                conversation.newest = newest;
                conversation.retriggers = 0;
            }
            if results {
                conversation.results_due = Some(now);
            }
        }
        self.consider(&key, now);
    }

    /// Puts the conversation into the table; false when that is full, and it is read again later.
    pub(super) fn know(&mut self, key: &Key, place: Place) -> bool {
        if self.conversations.contains_key(key) {
            return true;
        }
        if self.conversations.len() >= MAX_CONVERSATIONS {
            if let Some(agent) = self.agents.get_mut(&key.0) {
                agent.overflowed = true;
            }
            return false;
        }
        self.conversations.insert(key.clone(), Conversation::new(place));
        true
    }

    /// Starts a turn if the conversation has work and may work now.
    pub(super) fn consider(&mut self, key: &Key, now: Duration) {
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        if conversation.turn.is_some() || conversation.queued {
            return;
        }
        if conversation.run.is_some() {
            return self.consider_run(key, now);
        }
        if self.stage != Stage::Running {
            return;
        }
        if let Some(at) = conversation.next_work(now) {
            if at > now {
                self.timers.set(&TimerKey::Conversation(key.clone()), Some(at));
            } else {
                self.queue_turn(key, now);
            }
        } else {
            self.timers.set(&TimerKey::Conversation(key.clone()), None);
            self.forget_idle(key);
        }
    }

    pub(super) fn queue_turn(&mut self, key: &Key, now: Duration) {
        if let Some(conversation) = self.conversations.get_mut(key) {
            conversation.queued = true;
        }
        if let Some(agent) = self.agents.get_mut(&key.0) {
            let turn = (key.1.clone(), key.2);
            match key.2 {
                Lane::Talk => agent.ready.push_back(turn),
                Lane::Commands => agent.ready.push_front(turn),
            }
        }
        self.start_ready(&key.0, now);
    }

    /// An idle conversation costs nothing: the database knows it. Its compactor works for nobody who waits.
    pub(super) fn forget_idle(&mut self, key: &Key) {
        let here = |(id, process): (&ProcessKey, &Process)| {
            id.0 == key.0
                && process.conversation == key.1
                && process.lane == key.2
                && id.1.kind != ProcessKind::Compactor
        };
        if !self.processes.iter().any(here) {
            self.conversations.remove(key);
            self.rescan_if_overflowed();
        }
    }

    pub(super) fn rescan_if_overflowed(&mut self) {
        if self.conversations.len() > MAX_CONVERSATIONS / 2 {
            return;
        }
        for (id, agent) in self.agents.iter_mut().filter(|(_, agent)| agent.overflowed) {
            agent.overflowed = false;
            self.actions.push(Action::Rescan { agent: id.clone() });
        }
    }

    /// Starts turns for waiting conversations as far as the agent's limit allows.
    pub(super) fn start_ready(&mut self, agent_id: &AgentId, now: Duration) {
        while self.stage == Stage::Running
            && let Some(agent) = self.agents.get_mut(agent_id)
            && let Some((_, lane)) = agent.ready.front()
            && agent.turns < agent.limits.max_concurrent_turns + extra_turns(*lane)
            && let Some((conversation, lane)) = agent.ready.pop_front()
        {
            agent.turns += 1;
            self.start_turn(&(agent_id.clone(), conversation, lane), now);
        }
    }

    pub(super) fn start_turn(&mut self, key: &Key, now: Duration) {
        let running = self.running_in(key, now);
        let commands = key.2 == Lane::Commands;
        let all = if commands { self.running_of(&key.0, now) } else { Vec::new() };
        let troubles = if commands { self.troubles_of(&key.0, now) } else { Troubles::default() };
        let max_retriggers = self.agents.get(&key.0).map_or(0, |agent| agent.limits.max_retriggers);
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        conversation.queued = false;
        if conversation.run.as_ref().is_some_and(JobRun::is_over) {
            if let Some(agent) = self.agents.get_mut(&key.0) {
                agent.turns -= 1;
            }
            return self.consider_run(key, now);
        }
        let messages = conversation.newest > conversation.covered;
        // The turn reads all that waits, also what was not due yet.
        let results = conversation.results_due.take().is_some();
        (conversation.results_since, conversation.batch) = (None, None);
        if !messages {
            conversation.retriggers += 1;
        }
        let single = conversation.place.direct;
        let apology = conversation.apology.take();
        let work = match apology {
            apology if commands => Work::Commands { running: all, troubles, apology },
            Some(kind) => Work::Apology { kind, single },
            None => {
                let most = if conversation.run.is_some() { MAX_RUN_RETRIGGERS } else { max_retriggers };
                let execution = conversation.run.as_ref().map(|run| run.execution);
                Work::Turn(Turn { single, absorb: conversation.retriggers > most, running, execution })
            }
        };
        let hears = matches!(&work, Work::Turn(turn) if turn.execution.is_none());
        let left = conversation.run.as_ref().map(|run| run.deadline.saturating_sub(now));
        let timeout = left.map_or(TURN_TIMEOUT, |left| left.min(TURN_TIMEOUT));
        if let Some(agent) = self.agents.get_mut(&key.0) {
            agent.cortex.turn_begins();
        }
        let (newest, place) = (conversation.newest, conversation.place.clone());
        let begin = Begin { lane: key.2, ..Begin::new(ProcessKind::Channel, String::new(), timeout) };
        let started = self.start(&key.0, place, begin, now, work);
        if let Some(conversation) = self.conversations.get_mut(key) {
            conversation.turn =
                started.map(|process| RunningTurn { process, hears, newest, results, apology });
        }
    }

    pub(super) fn turn_ended(&mut self, key: &Key, how: How, now: Duration) {
        if self.run_ended(key, &how, now) {
            return;
        }
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let Some(turn) = conversation.turn.take() else { return };
        match how {
            How::Turned { covered, more, outbox } => {
                conversation.failures = 0;
                let covered = if more { covered } else { covered.max(Some(turn.newest)) };
                conversation.covered = conversation.covered.max(covered.unwrap_or_default());
                if conversation.newest <= conversation.covered {
                    conversation.batch = None;
                    // Results were left, or a message that we have not heard of yet.
                    conversation.results_due = conversation.results_due.or(more.then_some(now));
                } else if conversation.covered < turn.newest {
                    // What the turn has left has waited for its turn, and does not wait for what came later.
                    conversation.flush(now);
                }
                self.ring(key, outbox);
                if turn.apology.is_some() {
                    // Something that happened; a plain answer is not.
                    self.cortex_changed(&key.0, now);
                }
            }
            How::Deferred { wait, outbox } => {
                conversation.defer(&turn, wait, now);
                self.ring(key, outbox);
            }
            // A stop of the daemon leaves the message for the next start.
            How::Cancelled if self.stage != Stage::Running => return,
            How::Failed(kind, _) if kind.is_retryable() => conversation.fail(&turn, None, now),
            how => {
                let (kind, reason) = match how {
                    How::Cancelled => (Kind::Cancelled, String::new()),
                    How::Failed(kind, reason) => (kind, reason),
                    How::Panicked(panic) => (Kind::Bug, panic),
                    other => (Kind::Bug, format!("{other:?}")),
                };
                if conversation.run.is_some() {
                    return self.run_failed(key, kind, reason, now);
                }
                conversation.fail(&turn, Some(kind), now);
            }
        }
        self.consider(key, now);
    }

    fn ring(&mut self, key: &Key, outbox: Vec<InstanceId>) {
        let ring = |instance| Action::Ring { instance, conversation: key.1.clone() };
        self.actions.extend(outbox.into_iter().map(ring));
    }

    pub(super) fn results_came(&mut self, key: &Key, now: Duration) {
        if let Some(thread) = Place::thread_of(&key.1) {
            return self.thread_results(&key.0, thread, now);
        }
        let Some(agent) = self.agents.get(&key.0) else { return };
        let debounce = agent.limits.retrigger_debounce;
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let since = *conversation.results_since.get_or_insert(now);
        // A person who waits for others to write does not wait for them and a result.
        conversation.flush(now);
        conversation.results_due = Some((now + debounce).min(since + RETRIGGER_MAX_WAIT.max(debounce)));
        self.consider(key, now);
    }

    pub(super) fn on_exit(&mut self, key: &ProcessKey, how: How, now: Duration) {
        let Some(process) = self.processes.remove(key) else { return };
        self.timers.set(&TimerKey::Process(key.clone()), None);
        self.timers.set(&TimerKey::Supervision(key.clone()), None);
        let conversation = (key.0.clone(), process.conversation, process.lane);
        match key.1.kind {
            ProcessKind::Channel => {
                if let Some(agent) = self.agents.get_mut(&key.0) {
                    agent.turns -= 1;
                }
                self.turn_ended(&conversation, how, now);
            }
            ProcessKind::Worker if how == How::Idle => self.consider(&conversation, now),
            ProcessKind::Branch | ProcessKind::Worker => {
                if let Some(task) = process.task {
                    self.task_ended(&conversation, task, &how, now);
                }
                self.results_came(&conversation, now);
            }
            ProcessKind::Compactor => self.compactor_ended(key, &conversation.1, how, now),
            ProcessKind::Ingestion => self.chunk_ended(key, how, now),
            ProcessKind::Delegation => {}
            ProcessKind::Cortex => self.cortex_ended(key, how, now),
        }
        // A turn saves no memory and makes no task; and the cortex is no change to itself.
        if !matches!(key.1.kind, ProcessKind::Channel | ProcessKind::Cortex) {
            self.cortex_changed(&key.0, now);
        }
        self.start_ready(&key.0, now);
        self.start_tasks(&key.0, now);
    }
}

fn extra_turns(lane: Lane) -> usize {
    match lane {
        Lane::Talk => 0,
        Lane::Commands => EXTRA_COMMAND_TURNS,
    }
}

impl Conversation {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            newest: InboxId(0),
            covered: InboxId(0),
            batch: None,
            results_due: None,
            results_since: None,
            retriggers: 0,
            turn: None,
            failures: 0,
            not_before: None,
            apology: None,
            queued: false,
            run: None,
        }
    }

    /// When there is something to do: now, later, or (`None`) not at all.
    pub(super) fn next_work(&self, now: Duration) -> Option<Duration> {
        let said = (self.newest > self.covered).then(|| self.batch.as_ref().map_or(now, |batch| batch.due));
        let due = [said, self.results_due].into_iter().flatten().min();
        due.map(|at| at.max(self.not_before.unwrap_or_default()))
    }

    /// Puts back what a turn had taken that no model could be asked about.
    fn defer(&mut self, turn: &RunningTurn, wait: Duration, now: Duration) {
        self.failures = 0;
        self.not_before = Some(now + wait);
        self.give_back(turn, now);
    }

    /// Results that nobody has seen wait again, and have used up no turn.
    fn give_back(&mut self, turn: &RunningTurn, now: Duration) {
        if turn.results {
            self.results_due = Some(now);
            self.retriggers = self.retriggers.saturating_sub(u32::from(self.newest <= self.covered));
        }
    }

    /// Puts back what the failed turn had taken. Retryable failures (no `apology`) wait longer each
    /// time; so does an apology that could not be stored either.
    pub(super) fn fail(&mut self, turn: &RunningTurn, apology: Option<Kind>, now: Duration) {
        let again = turn.apology.is_some() || apology.is_none();
        self.failures += 1;
        if again {
            let wait = RETRY_BASE.saturating_mul(1 << (self.failures - 1).min(16)).min(RETRY_MAX);
            self.not_before = Some(now + wait);
        }
        self.apology = apology.or(turn.apology);
        self.give_back(turn, now);
    }
}
