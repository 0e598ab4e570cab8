//! The hub as a pure function: `handle(event, now) -> actions`. No clock, no thread, no I/O, no
//! randomness; the same events give the same actions, which is what makes the simulation possible.
//! Here stand its words and the loop; the rules stand below: `turns` of conversations, `asks` of processes,
//! `requests` of the API, `stop`, and those of each kind of work.

mod asks;
mod batch;
mod board;
mod compaction;
mod cortex;
mod ingestion;
mod observation;
mod post;
mod requests;
mod resume;
mod runs;
mod stop;
mod supervision;
mod threads;
mod turns;

pub use board::MAX_READY_TASKS;
pub use compaction::{COMPACTION_REST, COMPACTION_TIMEOUT, COMPACTION_TRIES, MAX_COMPACTORS};
pub use cortex::{CORTEX_DEBOUNCE, CORTEX_REST, ERRAND_TIMEOUT};
pub use ingestion::{CHUNK_TIMEOUT, INGEST};
pub use observation::SIGNALS_MAX;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crossbeam_channel::Sender;

use self::batch::Batch;
use self::board::Board;
use super::timers::Timers;
use crate::agent::{Job, Look, Running, Troubles, Turn, Work};
use crate::command::{Command, ProcessReport, StatusReport};
use crate::config::LimitsConfig;
use crate::conversation::{Place, Resumed};
use crate::effect::{Answer, Ask, ReadyTask, Refusal, TaskNews};
use crate::error::Kind;
use crate::event::{How, Origin, ProcessEvent, StopReason, What};
use crate::id::{AgentId, ConversationId, InboxId, InstanceId, ProcessId, ProcessKind};
use crate::message::Lane;
use compaction::Compacting;
use cortex::Cortex;
use ingestion::Reading;
use post::Post;
use runs::{JobRun, MAX_RUN_RETRIGGERS, Watch};
use threads::Threads;

/// However many results keep coming, the first of them waits no longer than this.
pub const RETRIGGER_MAX_WAIT: Duration = Duration::from_secs(2);
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
        /// It names the agent or answers it.
        addressed: bool,
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
    /// A start found requests or results for other agents.
    Post {
        agent: AgentId,
    },
    /// Somebody has carried them. None when that failed, else whether there are more.
    Carried {
        agent: AgentId,
        more: Option<bool>,
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
    /// How long nothing was heard of a process; none while it asks a model.
    Felt {
        agent: AgentId,
        process: ProcessId,
        quiet: Option<Duration>,
    },
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
    /// Something has come for this running turn or worker: it may look into the database.
    RingProcess {
        agent: AgentId,
        process: ProcessId,
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
    /// Look for how long nothing was heard of the process.
    Feel {
        agent: AgentId,
        process: ProcessId,
    },
    /// Look which jobs are due, and claim them.
    Look {
        agent: AgentId,
    },
    /// Carry what this agent has for others.
    Carry {
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
    /// When requests and results are carried again.
    Post(AgentId),
    /// The next try of a summary, or the end of a rest.
    Compaction(AgentId, ConversationId),
    /// The next try of a chunk.
    Reading(AgentId),
    /// The next errand of the cortex.
    Cortex(AgentId),
    /// The next results in a thread of the cortex.
    Threads(AgentId),
    /// When to look whether a process is stuck.
    Supervision(ProcessKey),
    Stop,
}

#[derive(Debug)]
struct Conversation {
    place: Place,
    /// Newest message known, and the newest that a committed turn covers.
    newest: InboxId,
    covered: InboxId,
    /// New messages that wait for more; without it they are due at once.
    batch: Option<Batch>,
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
    process: ProcessId,
    /// It takes messages that come while it runs.
    hears: bool,
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
    post: Post,
    compacting: BTreeMap<ConversationId, Compacting>,
    reading: Option<Reading>,
    cortex: Cortex,
    threads: Threads,
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
                    post: Post::default(),
                    compacting,
                    reading,
                    watch,
                    cortex: Cortex::default(),
                    threads: Threads::default(),
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
            Event::Arrived { agent, place, lane, inbox, addressed } => {
                self.arrived((agent, place.conversation.clone(), lane), place, inbox, addressed, now);
            }
            Event::Unfinished { agent, place, lane, newest, results } => {
                self.found((agent, place.conversation.clone(), lane), place, newest, results, now);
            }
            Event::Resumed { agent, run } => self.resume(&agent, run, now),
            Event::Unremembered { agent, place, wait } => self.remember(&agent, place, wait, now),
            Event::Task { agent, news } => self.on_news(&agent, news, now),
            Event::Post { agent } => self.carry(&agent),
            Event::Carried { agent, more } => self.carried(&agent, more, now),
            Event::FileWaits { agent, place, file } => self.file_waits(agent, place, file, now),
            Event::Process(event) => self.on_process(event, now),
            Event::Command(command) => self.on_command(command, now),
            Event::ClockChanged => {
                self.look_everywhere();
                self.warm_up(now);
                self.cortex_clock_changed(now);
            }
            Event::Looked { agent, look } => self.looked(&agent, look, now),
            Event::Felt { agent, process, quiet } => self.felt(&(agent, process), quiet, now),
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
                TimerKey::Process(key) => self.cancel(&key, StopReason::Timeout, now),
                TimerKey::Schedule(agent) => self.look(&agent),
                TimerKey::Run(key) => self.run_timed_out(&key, now),
                TimerKey::Tasks(agent) => self.start_tasks(&agent, now),
                TimerKey::Post(agent) => self.carry(&agent),
                TimerKey::Compaction(agent, conversation) => self.compaction_due(&agent, &conversation, now),
                TimerKey::Reading(agent) => self.read_on(&agent, now),
                TimerKey::Cortex(agent) => self.cortex_due(&agent, now),
                TimerKey::Threads(agent) => self.threads_due(&agent, now),
                TimerKey::Supervision(key) => self.feel(&key, now),
                TimerKey::Stop => self.stop_harder(now),
            }
        }
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
        self.processes.insert(key.clone(), entry);
        self.supervise(&key, now);
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
            What::Delegated => self.carry(&key.0),
            What::Routed(workers) => self.routed(&key, workers, now),
            What::Works => self.works(&key, now),
            What::Task(news) => {
                self.on_news(&key.0, news, now);
                self.cortex_changed(&key.0, now);
            }
            What::Observed(observation) => self.observed(&key, *observation, now),
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
}

#[cfg(test)]
mod tests;
