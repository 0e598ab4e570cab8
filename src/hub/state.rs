//! The hub as a pure function: `handle(event, now) -> actions`. No clock, no thread, no I/O, no
//! randomness; the same events give the same actions, which is what makes the simulation possible.

mod board;
mod compaction;
mod ingestion;
mod resume;
mod runs;

pub use board::MAX_READY_TASKS;
pub use compaction::{COMPACTION_REST, COMPACTION_TIMEOUT, COMPACTION_TRIES, MAX_COMPACTORS};
pub use ingestion::{CHUNK_TIMEOUT, INGEST};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crossbeam_channel::Sender;

use self::board::Board;
use super::timers::Timers;
use crate::agent::{Job, Look, Running, Turn, Work};
use crate::command::{Command, ProcessReport, StatusReport};
use crate::config::LimitsConfig;
use crate::conversation::{Place, Resumed};
use crate::effect::{Answer, Ask, ReadyTask, Refusal, TaskNews};
use crate::error::Kind;
use crate::event::{How, Origin, ProcessEvent, StopReason, What};
use crate::id::{AgentId, ConversationId, InboxId, InstanceId, ProcessId, ProcessKind};
use crate::message::Lane;
use compaction::Compacting;
use ingestion::Reading;
use runs::{JobRun, MAX_RUN_RETRIGGERS, Watch};

/// Results that come within this time of each other share one turn.
pub const RETRIGGER_DEBOUNCE: Duration = Duration::from_millis(500);
/// However many results keep coming, the first of them waits no longer than this.
pub const RETRIGGER_MAX_WAIT: Duration = Duration::from_secs(2);
/// Turns that results may start for one message of a person; further results are kept in the
/// history for the next message.
pub const MAX_RETRIGGERS: u32 = 3;
/// A channel turn that takes longer is cancelled and answered with a sentence. Model calls have
/// their own, shorter limits.
pub const TURN_TIMEOUT: Duration = Duration::from_secs(900);
/// Command turns that may run beside all the turns that the agent may run.
const EXTRA_COMMAND_TURNS: usize = 2;
/// First wait after a turn that could not be stored; doubles with every further failure.
const RETRY_BASE: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Conversations in memory. More wait in the database until these have become fewer.
const MAX_CONVERSATIONS: usize = 4096;
/// What running turns get to finish after a stop request.
pub const STOP_GRACE: Duration = Duration::from_secs(3);
/// What cancelled processes get to write their last state.
pub const STOP_CANCEL_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Event {
    /// A message is in the inbox.
    Arrived {
        agent: AgentId,
        place: Place,
        lane: Lane,
        inbox: InboxId,
    },
    /// Found in the database: unanswered messages up to `newest`, or results to relay.
    Unfinished {
        agent: AgentId,
        place: Place,
        lane: Lane,
        newest: Option<InboxId>,
        results: bool,
    },
    /// A start found a branch or worker that was cut off and goes on.
    Resumed {
        agent: AgentId,
        run: Resumed,
    },
    /// A start found a conversation from which memories are to be taken after this time.
    Unremembered {
        agent: AgentId,
        place: Place,
        wait: Duration,
    },
    /// The board has changed, or a start found this on it.
    Task {
        agent: AgentId,
        news: TaskNews,
    },
    /// A file has chunks that are not in memory yet. Offered again and again while that is so.
    FileWaits {
        agent: AgentId,
        place: Place,
        file: String,
    },
    Process(ProcessEvent),
    Command(Command),
    /// The wall clock was set, or nobody has looked at the jobs yet.
    ClockChanged,
    /// Somebody has looked at the agent's jobs; none when that failed.
    Looked {
        agent: AgentId,
        look: Option<Look>,
    },
    /// Some deadline may have come.
    Timer,
    Stop,
    /// The config was read again: limits of agents from now on.
    Reloaded(BTreeMap<AgentId, LimitsConfig>),
}

#[derive(Debug)]
pub enum Action {
    Start {
        agent: AgentId,
        job: Job,
    },
    Cancel {
        agent: AgentId,
        process: ProcessId,
        reason: StopReason,
    },
    /// A message for a running worker.
    Steer {
        agent: AgentId,
        process: ProcessId,
        message: String,
        to: Sender<Answer>,
    },
    Answer {
        to: Sender<Answer>,
        answer: Answer,
    },
    Report {
        to: Sender<StatusReport>,
        report: StatusReport,
    },
    Told {
        to: Sender<bool>,
        done: bool,
    },
    /// The adapter has new answers to send.
    Ring {
        instance: InstanceId,
        conversation: ConversationId,
    },
    /// Read the unfinished conversations and the ready tasks of this agent again.
    Rescan {
        agent: AgentId,
    },
    /// Look which jobs are due, and claim them.
    Look {
        agent: AgentId,
    },
    StopIntake,
    /// Nothing is left to do; the loop ends.
    Exit,
}

type Key = (AgentId, ConversationId, Lane);
type ProcessKey = (AgentId, ProcessId);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Conversation(Key),
    Process(ProcessKey),
    /// When to look at the agent's jobs again.
    Schedule(AgentId),
    /// When the run of a job has to be over.
    Run(Key),
    Tasks(AgentId),
    /// The next try of a summary, or the end of a rest.
    Compaction(AgentId, ConversationId),
    /// The next try of a chunk.
    Reading(AgentId),
    Stop,
}

#[derive(Debug)]
struct Conversation {
    place: Place,
    /// Newest message known, and the newest that a committed turn covers.
    newest: InboxId,
    covered: InboxId,
    /// When waiting results start a turn, and when the first of them came.
    results_due: Option<Duration>,
    results_since: Option<Duration>,
    retriggers: u32,
    turn: Option<RunningTurn>,
    failures: u32,
    not_before: Option<Duration>,
    apology: Option<Kind>,
    queued: bool,
    /// Set where the conversation is the run of a job.
    run: Option<JobRun>,
}

/// What the running turn was started with, to undo it when it fails.
#[derive(Debug)]
struct RunningTurn {
    newest: InboxId,
    results: bool,
    apology: Option<Kind>,
}

#[derive(Debug)]
struct Process {
    conversation: ConversationId,
    /// Of a turn.
    lane: Lane,
    /// What the worker was given.
    task: Option<ReadyTask>,
    what: String,
    status: String,
    started: Duration,
    /// An interactive worker between two inputs.
    waiting: bool,
    stopping: bool,
    deadline: Duration,
}

#[derive(Debug)]
struct Agent {
    limits: LimitsConfig,
    next_number: u64,
    /// Channel turns that run now.
    turns: usize,
    /// Conversations that wait for a free turn; bounded by the conversation table.
    ready: VecDeque<(ConversationId, Lane)>,
    /// The conversation table was full when this agent had more to do.
    overflowed: bool,
    watch: Watch,
    board: Board,
    compacting: BTreeMap<ConversationId, Compacting>,
    reading: Option<Reading>,
}

/// What is known of a process when it starts.
struct Begin {
    kind: ProcessKind,
    lane: Lane,
    what: String,
    timeout: Duration,
    task: Option<ReadyTask>,
}

impl Begin {
    fn new(kind: ProcessKind, what: String, timeout: Duration) -> Self {
        Self { kind, lane: Lane::Talk, what, timeout, task: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Draining,
    Cancelling,
    Done,
}

#[derive(Debug)]
pub struct Hub {
    agents: BTreeMap<AgentId, Agent>,
    conversations: BTreeMap<Key, Conversation>,
    processes: BTreeMap<ProcessKey, Process>,
    timers: Timers<TimerKey>,
    stage: Stage,
    actions: Vec<Action>,
}

impl Hub {
    /// `agents`: limits and first free process number of each.
    pub fn new(agents: impl IntoIterator<Item = (AgentId, LimitsConfig, u64)>) -> Self {
        let agents = agents
            .into_iter()
            .map(|(id, limits, next_number)| {
                let (ready, board, reading) = (VecDeque::new(), Board::default(), None);
                let watch = Watch::default();
                let compacting = BTreeMap::new();
                let agent = Agent {
                    limits,
                    next_number,
                    turns: 0,
                    ready,
                    overflowed: false,
                    board,
                    compacting,
                    reading,
                    watch,
                };
                (id, agent)
            })
            .collect();
        Self {
            agents,
            conversations: BTreeMap::new(),
            processes: BTreeMap::new(),
            timers: Timers::new(),
            stage: Stage::Running,
            actions: Vec::new(),
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// `now` is monotonic and never goes back.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Arrived { agent, place, lane, inbox } => {
                self.found((agent, place.conversation.clone(), lane), place, Some(inbox), false, now);
            }
            Event::Unfinished { agent, place, lane, newest, results } => {
                self.found((agent, place.conversation.clone(), lane), place, newest, results, now);
            }
            Event::Resumed { agent, run } => self.resume(&agent, run, now),
            Event::Unremembered { agent, place, wait } => self.remember(&agent, place, wait, now),
            Event::Task { agent, news } => self.on_news(&agent, news, now),
            Event::FileWaits { agent, place, file } => self.file_waits(agent, place, file, now),
            Event::Process(event) => self.on_process(event, now),
            Event::Command(command) => self.on_command(command, now),
            Event::ClockChanged => self.look_everywhere(),
            Event::Looked { agent, look } => self.looked(&agent, look, now),
            Event::Timer => {}
            Event::Stop => self.stop(now),
            Event::Reloaded(limits) => self.reloaded(limits, now),
        }
        self.run_timers(now);
        self.finish_stop();
        std::mem::take(&mut self.actions)
    }

    fn run_timers(&mut self, now: Duration) {
        while let Some(key) = self.timers.pop(now) {
            match key {
                TimerKey::Conversation(key) => self.consider(&key, now),
                TimerKey::Process(key) => self.cancel(&key, StopReason::Timeout),
                TimerKey::Schedule(agent) => self.look(&agent),
                TimerKey::Run(key) => self.run_timed_out(&key, now),
                TimerKey::Tasks(agent) => self.start_tasks(&agent, now),
                TimerKey::Compaction(agent, conversation) => self.compaction_due(&agent, &conversation, now),
                TimerKey::Reading(agent) => self.read_on(&agent, now),
                TimerKey::Stop => self.stop_harder(now),
            }
        }
    }

    // ---- what there is to do -------------------------------------------------------------------

    fn found(&mut self, key: Key, place: Place, newest: Option<InboxId>, results: bool, now: Duration) {
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
    fn know(&mut self, key: &Key, place: Place) -> bool {
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
    fn consider(&mut self, key: &Key, now: Duration) {
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

    fn queue_turn(&mut self, key: &Key, now: Duration) {
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
    fn forget_idle(&mut self, key: &Key) {
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

    fn rescan_if_overflowed(&mut self) {
        if self.conversations.len() > MAX_CONVERSATIONS / 2 {
            return;
        }
        for (id, agent) in self.agents.iter_mut().filter(|(_, agent)| agent.overflowed) {
            agent.overflowed = false;
            self.actions.push(Action::Rescan { agent: id.clone() });
        }
    }

    /// Starts turns for waiting conversations as far as the agent's limit allows.
    fn start_ready(&mut self, agent_id: &AgentId, now: Duration) {
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

    fn start_turn(&mut self, key: &Key, now: Duration) {
        let running = self.running_in(key, now);
        let all = if key.2 == Lane::Commands { self.running_of(&key.0, now) } else { Vec::new() };
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        conversation.queued = false;
        if conversation.run.as_ref().is_some_and(JobRun::is_over) {
            if let Some(agent) = self.agents.get_mut(&key.0) {
                agent.turns -= 1;
            }
            return self.consider_run(key, now);
        }
        let messages = conversation.newest > conversation.covered;
        let results = conversation.results_due.take_if(|at| *at <= now).is_some();
        conversation.results_since = None;
        if !messages {
            conversation.retriggers += 1;
        }
        let single = conversation.place.direct;
        let apology = conversation.apology.take();
        let work = match apology {
            apology if key.2 == Lane::Commands => Work::Commands { running: all, apology },
            Some(kind) => Work::Apology { kind, single },
            None => {
                let most = if conversation.run.is_some() { MAX_RUN_RETRIGGERS } else { MAX_RETRIGGERS };
                let execution = conversation.run.as_ref().map(|run| run.execution);
                Work::Turn(Turn { single, absorb: conversation.retriggers > most, running, execution })
            }
        };
        let left = conversation.run.as_ref().map(|run| run.deadline.saturating_sub(now));
        let timeout = left.map_or(TURN_TIMEOUT, |left| left.min(TURN_TIMEOUT));
        conversation.turn = Some(RunningTurn { newest: conversation.newest, results, apology });
        let place = conversation.place.clone();
        let begin = Begin { lane: key.2, ..Begin::new(ProcessKind::Channel, String::new(), timeout) };
        self.start(&key.0, place, begin, now, work);
    }

    /// What a turn's status block shows.
    fn running_in(&self, key: &Key, now: Duration) -> Vec<Running> {
        self.processes
            .iter()
            .filter(|(id, process)| id.0 == key.0 && process.conversation == key.1)
            .filter(|(id, _)| id.1.kind.is_told_of())
            .map(|(id, process)| process.running(id.1, now))
            .collect()
    }

    /// What runs in the whole agent, but for the turns that answer commands.
    fn running_of(&self, agent: &AgentId, now: Duration) -> Vec<(ConversationId, Running)> {
        self.processes
            .iter()
            .filter(|(id, process)| id.0 == *agent && process.lane == Lane::Talk)
            .map(|(id, process)| (process.conversation.clone(), process.running(id.1, now)))
            .collect()
    }

    fn start(
        &mut self,
        agent_id: &AgentId,
        place: Place,
        begin: Begin,
        now: Duration,
        work: Work,
    ) -> Option<ProcessId> {
        let agent = self.agents.get_mut(agent_id)?;
        let Begin { kind, lane, what, timeout, task } = begin;
        let process = ProcessId::new(kind, agent.next_number);
        agent.next_number += 1;
        let key = (agent_id.clone(), process);
        let entry = Process {
            conversation: place.conversation.clone(),
            lane,
            task,
            what,
            status: String::new(),
            started: now,
            waiting: false,
            stopping: false,
            deadline: now + timeout,
        };
        self.timers.set(&TimerKey::Process(key.clone()), Some(entry.deadline));
        self.processes.insert(key, entry);
        let job = Job { process, place, work };
        self.actions.push(Action::Start { agent: agent_id.clone(), job });
        Some(process)
    }

    // ---- what processes say --------------------------------------------------------------------

    fn on_process(&mut self, event: ProcessEvent, now: Duration) {
        let key = (event.agent, event.process);
        let Some(process) = self.processes.get_mut(&key) else { return };
        match event.what {
            What::Status(status) => process.status = status,
            What::Scheduled => self.look(&key.0),
            What::Task(news) => self.on_news(&key.0, news, now),
            What::Pressed { window, unread, remember } => self.pressed(&key, (window, unread), remember, now),
            What::Waiting => {
                process.waiting = true;
                let conversation = (key.0.clone(), process.conversation.clone(), Lane::Talk);
                let idle = self.agents.get(&key.0).map(|agent| now + agent.limits.worker_idle_timeout);
                self.timers.set(&TimerKey::Process(key), idle);
                self.results_came(&conversation, now);
            }
            What::Asked { ask, origin, answer } => self.on_ask(&key, ask, origin, answer, now),
            What::Exited(how) => self.on_exit(&key, how, now),
        }
    }

    fn on_exit(&mut self, key: &ProcessKey, how: How, now: Duration) {
        let Some(process) = self.processes.remove(key) else { return };
        self.timers.set(&TimerKey::Process(key.clone()), None);
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
        }
        self.start_ready(&key.0, now);
        self.start_tasks(&key.0, now);
    }

    fn turn_ended(&mut self, key: &Key, how: How, now: Duration) {
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
                let conversation_id = &key.1;
                self.actions.extend(
                    outbox
                        .into_iter()
                        .map(|instance| Action::Ring { instance, conversation: conversation_id.clone() }),
                );
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

    fn results_came(&mut self, key: &Key, now: Duration) {
        let Some(conversation) = self.conversations.get_mut(key) else { return };
        let since = *conversation.results_since.get_or_insert(now);
        conversation.results_due = Some((now + RETRIGGER_DEBOUNCE).min(since + RETRIGGER_MAX_WAIT));
        self.consider(key, now);
    }

    fn on_ask(&mut self, key: &ProcessKey, ask: Ask, origin: Origin, to: Sender<Answer>, now: Duration) {
        let refused = |refusal| Answer::Refused(refusal);
        let answer = match ask {
            _ if self.stage != Stage::Running => refused(Refusal::Stopping),
            _ if key.1.kind != ProcessKind::Channel => refused(Refusal::Forbidden),
            Ask::Branch { description } => self.spawn_branch(key, description, origin, now),
            Ask::SpawnWorker { task, interactive } => self.spawn_worker(key, task, interactive, origin, now),
            Ask::Route { worker, message } => match self.routable(key, worker, now) {
                Ok(()) => {
                    let (agent, process) = (key.0.clone(), worker);
                    self.actions.push(Action::Steer { agent, process, message, to });
                    return;
                }
                Err(refusal) => refused(refusal),
            },
            Ask::Cancel { process, reason } => {
                let target = (key.0.clone(), process);
                if self.is_neighbour(key, &target) {
                    self.cancel(&target, StopReason::Asked(reason));
                    Answer::Done(process.to_string())
                } else {
                    refused(Refusal::Unknown(process))
                }
            }
        };
        self.actions.push(Action::Answer { to, answer });
    }

    fn spawn_branch(
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
        let begin = Begin::new(ProcessKind::Branch, what, limits.branch_timeout);
        match self.start(&key.0, place, begin, now, Work::Branch { description, origin }) {
            Some(process) => Answer::Started(process),
            None => Answer::Refused(Refusal::Stopping),
        }
    }

    fn spawn_worker(
        &mut self,
        key: &ProcessKey,
        task: String,
        interactive: bool,
        origin: Origin,
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
        let what = task.clone();
        let begin = Begin::new(ProcessKind::Worker, what, limits.worker_timeout);
        match self.start(&key.0, place, begin, now, Work::Worker { task, interactive, origin }) {
            Some(process) => Answer::Started(process),
            None => Answer::Refused(Refusal::Stopping),
        }
    }

    fn surroundings(&self, key: &ProcessKey) -> Option<(LimitsConfig, Place)> {
        let process = self.processes.get(key)?;
        let conversation =
            self.conversations.get(&(key.0.clone(), process.conversation.clone(), process.lane))?;
        Some((self.agents.get(&key.0)?.limits.clone(), conversation.place.clone()))
    }

    /// Processes of the same conversation.
    fn beside<'a>(&'a self, key: &'a ProcessKey) -> impl Iterator<Item = (&'a ProcessKey, &'a Process)> {
        let conversation = self.processes.get(key).map(|process| &process.conversation);
        self.processes
            .iter()
            .filter(move |(id, process)| id.0 == key.0 && Some(&process.conversation) == conversation)
    }

    fn count_beside(&self, key: &ProcessKey, kind: ProcessKind) -> usize {
        self.beside(key).filter(|(id, _)| id.1.kind == kind).count()
    }

    fn is_neighbour(&self, key: &ProcessKey, target: &ProcessKey) -> bool {
        target.1.kind.is_told_of() && self.beside(key).any(|(id, _)| id == target)
    }

    fn routable(&mut self, key: &ProcessKey, worker: ProcessId, now: Duration) -> Result<(), Refusal> {
        let target = (key.0.clone(), worker);
        if worker.kind != ProcessKind::Worker || !self.is_neighbour(key, &target) {
            return Err(Refusal::Unknown(worker));
        }
        let timeout = self.agents.get(&key.0).map_or(Duration::ZERO, |agent| agent.limits.worker_timeout);
        let Some(process) = self.processes.get_mut(&target).filter(|process| !process.stopping) else {
            return Err(Refusal::Unknown(worker));
        };
        if process.waiting {
            // The clock of the work starts anew; waiting does not count.
            process.waiting = false;
            process.deadline = now + timeout;
            let deadline = process.deadline;
            self.timers.set(&TimerKey::Process(target), Some(deadline));
        }
        Ok(())
    }

    /// Asks a process to stop, once.
    fn cancel(&mut self, key: &ProcessKey, reason: StopReason) {
        let Some(process) = self.processes.get_mut(key) else { return };
        if !process.stopping {
            process.stopping = true;
            self.timers.set(&TimerKey::Process(key.clone()), None);
            self.actions.push(Action::Cancel { agent: key.0.clone(), process: key.1, reason });
        }
    }

    // ---- commands and stop ---------------------------------------------------------------------

    fn on_command(&mut self, command: Command, now: Duration) {
        match command {
            Command::Status { answer } => {
                let report = self.report(now);
                self.actions.push(Action::Report { to: answer, report });
            }
            Command::CancelProcess { agent, process, reason, answer } => {
                let key = (agent, process);
                let known = self.processes.contains_key(&key);
                self.cancel(&key, StopReason::Asked(reason));
                self.actions.push(Action::Told { to: answer, done: known });
            }
            Command::Tasks { agent, news } => {
                news.into_iter().for_each(|news| self.on_news(&agent, news, now));
            }
        }
    }

    fn report(&self, now: Duration) -> StatusReport {
        let process = |(key, process): (&ProcessKey, &Process)| ProcessReport {
            agent: key.0.to_string(),
            process: key.1.to_string(),
            conversation: process.conversation.to_string(),
            what: process.what.clone(),
            status: process.status.clone(),
            seconds: now.saturating_sub(process.started).as_secs(),
        };
        StatusReport {
            conversations: self.conversations.len(),
            waiting_turns: self.agents.values().map(|agent| agent.ready.len()).sum(),
            processes: self.processes.iter().map(process).collect(),
            stopping: self.stage != Stage::Running,
            // An idle conversation is not in the table; a busy one may be there with both lanes.
            busy: self
                .conversations
                .keys()
                .map(|key| key.1.to_string())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        }
    }

    /// What runs keeps its deadline; what starts or begins to wait has the new one.
    fn reloaded(&mut self, limits: BTreeMap<AgentId, LimitsConfig>, now: Duration) {
        for (id, limits) in limits {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.limits = limits;
                self.start_ready(&id, now);
                self.start_tasks(&id, now);
            }
        }
        // The zone and the policy of jobs may be others.
        self.look_everywhere();
    }

    fn stop(&mut self, now: Duration) {
        if self.stage != Stage::Running {
            return;
        }
        self.stage = Stage::Draining;
        for agent in self.agents.values_mut() {
            agent.ready.clear();
            agent.board = Board::default();
        }
        self.actions.push(Action::StopIntake);
        self.timers.set(&TimerKey::Stop, Some(now + STOP_GRACE));
        let idle: Vec<_> = self
            .processes
            .iter()
            .filter(|(key, process)| process.waiting || key.1.kind == ProcessKind::Compactor)
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.cancel(&key, StopReason::Shutdown);
        }
    }

    fn stop_harder(&mut self, now: Duration) {
        match self.stage {
            Stage::Draining => {
                self.stage = Stage::Cancelling;
                self.timers.set(&TimerKey::Stop, Some(now + STOP_CANCEL_WAIT));
                let keys: Vec<_> = self.processes.keys().cloned().collect();
                for key in keys {
                    self.cancel(&key, StopReason::Shutdown);
                }
            }
            Stage::Cancelling => self.exit(),
            Stage::Running | Stage::Done => {}
        }
    }

    fn finish_stop(&mut self) {
        if matches!(self.stage, Stage::Draining | Stage::Cancelling) && self.processes.is_empty() {
            self.exit();
        }
    }

    fn exit(&mut self) {
        self.stage = Stage::Done;
        self.actions.push(Action::Exit);
    }
}

fn extra_turns(lane: Lane) -> usize {
    match lane {
        Lane::Talk => 0,
        Lane::Commands => EXTRA_COMMAND_TURNS,
    }
}

impl Process {
    fn running(&self, process: ProcessId, now: Duration) -> Running {
        Running {
            process,
            what: self.what.clone(),
            status: self.status.clone(),
            seconds: now.saturating_sub(self.started).as_secs(),
            waiting: self.waiting,
        }
    }
}

impl Conversation {
    fn new(place: Place) -> Self {
        Self {
            place,
            newest: InboxId(0),
            covered: InboxId(0),
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
    fn next_work(&self, now: Duration) -> Option<Duration> {
        let due = if self.newest > self.covered { Some(now) } else { self.results_due };
        due.map(|at| at.max(self.not_before.unwrap_or_default()))
    }

    /// Puts back what the failed turn had taken. Retryable failures (no `apology`) wait longer each
    /// time; so does an apology that could not be stored either.
    fn fail(&mut self, turn: &RunningTurn, apology: Option<Kind>, now: Duration) {
        let again = turn.apology.is_some() || apology.is_none();
        self.failures += 1;
        if again {
            let wait = RETRY_BASE.saturating_mul(1 << (self.failures - 1).min(16)).min(RETRY_MAX);
            self.not_before = Some(now + wait);
        }
        self.apology = apology.or(turn.apology);
        if turn.results {
            self.results_due = Some(now);
        }
    }
}

#[cfg(test)]
mod tests;
