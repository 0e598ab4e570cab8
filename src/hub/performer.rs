//! Does what the hub decides: starts and stops process threads, hands messages and answers on, rings
//! adapters, feeds the watchdog. It waits in one place and never on I/O.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, at, bounded, never, select};

use super::post;
use super::state::{Action, Event, Hub, MAX_READY_TASKS};
use crate::agent::{self, AgentParts, Job, Link, Pulse, Stage, Work};
use crate::allocator;
use crate::clock::SharedClock;
use crate::command::Command;
use crate::conversation::Unfinished;
use crate::db::DbError;
use crate::effect::TaskNews;
use crate::error::Kind;
use crate::event::{How, ProcessEvent, StopReason, What};
use crate::id::{AgentId, InstanceId, ProcessId, ProcessKind};
use crate::message::{Bell, Saying, cortex_bell};
use crate::onlookers::Onlookers;
use crate::thread::{self, Cancel, contained};

/// Stop and nothing else; a second one must not block the signal thread.
pub const QUEUE_CONTROL: usize = 16;
/// Events of all processes; they wait when the hub is busy.
pub const QUEUE_UP: usize = 256;
/// Committed messages; adapters wait when the hub is busy, which stops them from reading on.
pub const QUEUE_INBOUND: usize = 64;
/// Requests of the API.
pub const QUEUE_COMMANDS: usize = 32;
/// The parts of all agents, when the config was read again. A reload waits until the hub has taken it:
/// what comes to the hub after that sees the new ones.
pub const QUEUE_RELOADS: usize = 0;
/// Rings for one process: it reads all that has come when it hears one, so a second one has nothing to add.
const QUEUE_RINGS: usize = 1;
/// One turn of the loop should take far less than this.
const SLOW_TURN: Duration = Duration::from_millis(100);

/// What the threads of processes that are over get to end.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// Nothing ran for this long: memory that the last turns needed goes back to the system, once.
const QUIET: Duration = Duration::from_secs(2);

/// What the processes of each agent are made of. Replaced whole; who has the old ones keeps them.
pub type Agents = BTreeMap<AgentId, Arc<AgentParts>>;

pub struct Inputs {
    pub control: Receiver<Event>,
    pub up: Receiver<ProcessEvent>,
    pub inbound: Receiver<Event>,
    pub commands: Receiver<Command>,
    pub reloads: Receiver<Agents>,
}

pub struct HubParts {
    pub agents: Agents,
    pub bells: BTreeMap<InstanceId, Arc<dyn Bell>>,
    pub clock: SharedClock,
    pub inputs: Inputs,
    pub ends: Ends,
    pub stopping: Arc<AtomicBool>,
}

/// What process and rescan threads send into.
pub struct Ends {
    pub up: Sender<ProcessEvent>,
    pub inbound: Sender<Event>,
    pub onlookers: Arc<Onlookers>,
}

struct RunningProcess {
    cancel: Cancel,
    reason: Arc<OnceLock<StopReason>>,
    rings: Sender<()>,
    pulse: Arc<Pulse>,
    handle: JoinHandle<()>,
}

struct Performer {
    parts: HubParts,
    running: HashMap<(AgentId, ProcessId), RunningProcess>,
    /// Threads that have said their last word and are about to end.
    ended: Vec<JoinHandle<()>>,
    draining: bool,
    /// Answers for the hub, before anything else; at most one for each process.
    felt: VecDeque<Event>,
}

/// Runs the hub until it has stopped everything. `tick` is called at least every `tick_every` (the
/// watchdog); it must not block.
pub fn run(mut hub: Hub, parts: HubParts, tick_every: Option<Duration>, mut tick: impl FnMut()) {
    let mut performer = Performer {
        parts,
        running: HashMap::new(),
        ended: Vec::new(),
        draining: false,
        felt: VecDeque::new(),
    };
    let mut next_tick = tick_every.map(|every| performer.parts.clock.monotonic() + every);
    let mut quiet_at = None;
    loop {
        let deadline = [hub.next_deadline(), next_tick, quiet_at].into_iter().flatten().min();
        let event = performer.next_event(deadline);
        let started = Instant::now();
        let now = performer.parts.clock.monotonic();
        if quiet_at.is_some_and(|at| now >= at) {
            quiet_at = None;
            performer.join_ended();
            if performer.running.is_empty() {
                allocator::give_back();
            }
        }
        if matches!(&event, Event::Process(ProcessEvent { what: What::Exited(_), .. })) {
            quiet_at = Some(now + QUIET);
        }
        if let (Some(due), Some(every)) = (next_tick, tick_every)
            && now >= due
        {
            tick();
            next_tick = Some(now + every);
        }
        let kind = kind_of(&event);
        let mut exit = false;
        for action in hub.handle(event, now) {
            exit |= matches!(action, Action::Exit);
            performer.perform(action);
        }
        performer.join_ended();
        if started.elapsed() > SLOW_TURN {
            log::warn!("the hub took {} ms for {kind}", started.elapsed().as_millis());
        }
        if exit {
            break;
        }
    }
    let waited = Instant::now();
    for ((_, process), left) in performer.running {
        // Most have said that they are over, and are about to leave their thread.
        while !left.handle.is_finished() && waited.elapsed() < LAST_STEPS {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if !left.handle.is_finished() {
            log::warn!("{process} did not end in time and is left behind");
        }
    }
}

fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Arrived { .. } => "a message",
        Event::Unfinished { .. } => "an unfinished conversation",
        Event::Resumed { .. } => "a run that goes on",
        Event::Unremembered { .. } => "a conversation to remember",
        Event::Task { .. } => "news of a task",
        Event::Post { .. } | Event::Carried { .. } => "post between agents",
        Event::FileWaits { .. } => "a file to remember",
        Event::Process(_) => "a process event",
        Event::Command(_) => "a command",
        Event::ClockChanged => "a change of the clock",
        Event::Looked { .. } => "a look at the jobs",
        Event::Timer => "a timer",
        Event::Felt { .. } => "a sign of life",
        Event::Stop => "a stop",
        Event::Reloaded(_) => "a new config",
    }
}

impl Performer {
    /// Control first, then whatever comes; with a deadline, a timer event at the latest then.
    fn next_event(&mut self, deadline: Option<Duration>) -> Event {
        let inputs = &self.parts.inputs;
        if let Ok(event) = inputs.control.try_recv() {
            return event;
        }
        if let Some(event) = self.felt.pop_front() {
            return event;
        }
        let wait = deadline.map(|at| at.saturating_sub(self.parts.clock.monotonic()));
        let timer = wait.map_or_else(never, |wait| at(Instant::now() + wait));
        let agents = select! {
            recv(inputs.control) -> event => return event.unwrap_or(Event::Stop),
            recv(inputs.up) -> event => return event.map_or(Event::Timer, Event::Process),
            recv(inputs.inbound) -> event => return match event {
                Ok(event) if !self.draining => event,
                // It stands in the inbox and is found at the next start; nobody may wait for us meanwhile.
                _ => Event::Timer,
            },
            recv(inputs.commands) -> command => return command.map_or(Event::Timer, Event::Command),
            recv(inputs.reloads) -> agents => agents,
            recv(timer) -> _ => return Event::Timer,
        };
        match agents {
            Ok(agents) => self.replace(agents),
            Err(_) => {
                // Nobody reads the config again any more: do not look here for ever.
                self.parts.inputs.reloads = never();
                Event::Timer
            }
        }
    }

    /// From the next start on.
    fn replace(&mut self, agents: Agents) -> Event {
        let limits = |(id, parts): (&AgentId, &Arc<AgentParts>)| (id.clone(), parts.config.limits.clone());
        let event = Event::Reloaded(agents.iter().map(limits).collect());
        self.parts.agents = agents;
        event
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { agent, job } => self.start(agent, job),
            Action::Cancel { agent, process, reason } => {
                if let Some(running) = self.running.get(&(agent, process)) {
                    // The first reason stands.
                    running.reason.set(reason).ok();
                    running.cancel.cancel();
                }
            }
            Action::RingProcess { agent, process } => {
                if let Some(running) = self.running.get(&(agent, process)) {
                    // A ring that nobody has heard yet is as good as two.
                    running.rings.try_send(()).ok();
                }
            }
            Action::Answer { to, answer } => drop(to.try_send(answer)),
            Action::Feel { agent, process } => {
                let running = self.running.get(&(agent.clone(), process));
                let quiet = running.and_then(|running| running.pulse.quiet());
                self.felt.push_back(Event::Felt { agent, process, quiet });
            }
            Action::Report { to, report } => drop(to.try_send(report)),
            Action::Told { to, done } => drop(to.try_send(done)),
            Action::Ring { instance, conversation } => {
                if let Some(bell) = self.parts.bells.get(&instance) {
                    bell.ring(&conversation);
                }
            }
            Action::Rescan { agent } => self.rescan(agent),
            Action::Look { agent } => self.look(agent),
            Action::Carry { agent } => post::carry(&self.parts, agent, &mut self.ended),
            Action::StopIntake => {
                self.draining = true;
                self.parts.stopping.store(true, Ordering::SeqCst);
            }
            Action::Exit => {}
        }
    }

    fn start(&mut self, agent: AgentId, job: Job) {
        let Some(parts) = self.parts.agents.get(&agent).cloned() else { return };
        let process = job.process;
        let (rings, rung) = bounded(QUEUE_RINGS);
        let (cancel, reason) = (Cancel::new(), Arc::new(OnceLock::new()));
        let pulse = Arc::new(Pulse::new(self.parts.clock.clone()));
        let bell = match &job.work {
            Work::CortexChat(_) => self.parts.bells.get(&cortex_bell(&agent)),
            _ => self.parts.bells.get(&job.place.instance).filter(|_| process.kind == ProcessKind::Channel),
        };
        let place = (agent.clone(), job.place.conversation.clone(), process);
        let stage = Stage::new(self.parts.ends.onlookers.clone(), parts.llm.scrubber().clone(), place);
        let thread = ProcessThread {
            agent: agent.clone(),
            parts,
            job,
            cancel: cancel.clone(),
            reason: reason.clone(),
            rings: rung,
            pulse: pulse.clone(),
            up: self.parts.ends.up.clone(),
            bell: bell.cloned(),
            stage,
        };
        let name = match process.kind {
            ProcessKind::Channel => format!("chan:{}", process.number),
            ProcessKind::Branch => format!("branch:{}", process.number),
            ProcessKind::Worker => format!("worker:{}", process.number),
            ProcessKind::Compactor => format!("compact:{}", process.number),
            ProcessKind::Ingestion | ProcessKind::Delegation => format!("ingest:{}", process.number),
            ProcessKind::Cortex => format!("cortex:{}", process.number),
        };
        match thread::spawn(name, move || thread.run()) {
            Ok(handle) => {
                let running = RunningProcess { cancel, reason, pulse, rings, handle };
                self.running.insert((agent, process), running);
            }
            Err(error) => {
                log::error!("no thread for {process}: {error}");
                let what = What::Exited(How::Failed(Kind::Transient, error.to_string()));
                let event = ProcessEvent { agent, process, what };
                if let Err(TrySendError::Full(_)) = self.parts.ends.up.try_send(event) {
                    log::error!("{process} is lost until the next start: no thread and no room for the news");
                }
            }
        }
    }

    /// Reads what there is to do again, on a thread of its own.
    fn rescan(&mut self, agent: AgentId) {
        let Some(parts) = self.parts.agents.get(&agent).cloned() else { return };
        let inbound = self.parts.ends.inbound.clone();
        let body = move || match work_found(&agent, &parts) {
            Ok(found) => {
                // A hub that is gone reads it at its next start.
                found.into_iter().try_for_each(|event| inbound.send(event)).ok();
            }
            Err(error) => log::error!("what waits for {agent} could not be read: {error}"),
        };
        match thread::spawn("rescan", body) {
            Ok(handle) => self.ended.push(handle),
            Err(error) => log::error!("no thread for a rescan: {error}"),
        }
    }

    /// Looks at the agent's jobs, on a thread of its own: it waits for the disk when something is due.
    fn look(&mut self, agent: AgentId) {
        let Some(parts) = self.parts.agents.get(&agent).cloned() else { return };
        let inbound = self.parts.ends.inbound.clone();
        let (name, failed) = (format!("cron:{agent}"), Event::Looked { agent: agent.clone(), look: None });
        let body = move || {
            let look = match contained(|| agent::look(&parts)) {
                Ok(Ok(look)) => Some(look),
                Ok(Err(error)) => {
                    log::error!("the jobs of {agent} could not be looked at: {error}");
                    None
                }
                Err(panic) => {
                    log::error!("looking at the jobs of {agent} panicked: {panic}");
                    None
                }
            };
            // A hub that is gone finds what was claimed at its next start.
            inbound.send(Event::Looked { agent, look }).ok();
        };
        match thread::spawn(name, body) {
            Ok(handle) => self.ended.push(handle),
            Err(error) => {
                log::error!("no thread to look at jobs: {error}");
                if self.parts.ends.inbound.try_send(failed).is_err() {
                    log::error!("no job runs until the next start: no thread and no room for the news");
                }
            }
        }
    }

    /// A thread that has sent its exit ends by itself; its handle is kept until it has.
    fn join_ended(&mut self) {
        let over: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| running.handle.is_finished())
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            if let Some(running) = self.running.remove(&key) {
                self.ended.push(running.handle);
            }
        }
        for handle in self.ended.extract_if(.., |handle| handle.is_finished()) {
            if handle.join().is_err() {
                log::error!("a process thread panicked outside of its guard");
            }
        }
    }
}

/// What the database of an agent holds for the hub.
fn work_found(agent: &AgentId, parts: &AgentParts) -> Result<Vec<Event>, DbError> {
    let unfinished = parts.conversations.unfinished()?;
    Ok(events_of(agent, unfinished).chain(ready_tasks(agent, parts)?).collect())
}

/// What a start found, as events.
pub fn events_of(agent: &AgentId, unfinished: Vec<Unfinished>) -> impl Iterator<Item = Event> {
    let agent = agent.clone();
    unfinished.into_iter().map(move |Unfinished { place, lane, newest, results }| Event::Unfinished {
        agent: agent.clone(),
        place,
        lane,
        newest,
        results,
    })
}

/// Conversations from which memories are to be taken, as events.
///
/// # Errors
/// The database cannot be read.
pub fn unremembered(agent: &AgentId, parts: &AgentParts) -> Result<Vec<Event>, DbError> {
    let event = |(place, wait)| Event::Unremembered { agent: agent.clone(), place, wait };
    Ok(agent::unremembered(parts)?.into_iter().map(event).collect())
}

/// Tasks that are ready, as events.
///
/// # Errors
/// The database cannot be read.
pub fn ready_tasks(agent: &AgentId, parts: &AgentParts) -> Result<Vec<Event>, DbError> {
    // One more than the hub keeps: then it knows that there are more.
    let ready = parts.tasks().ready(MAX_READY_TASKS + 1)?;
    Ok(ready
        .into_iter()
        .map(|task| Event::Task { agent: agent.clone(), news: TaskNews::Ready(task) })
        .collect())
}

/// What runs on the thread of one process.
struct ProcessThread {
    agent: AgentId,
    parts: Arc<AgentParts>,
    job: Job,
    cancel: Cancel,
    reason: Arc<OnceLock<StopReason>>,
    rings: Receiver<()>,
    pulse: Arc<Pulse>,
    up: Sender<ProcessEvent>,
    /// Of the adapter that shows what a turn is about to say.
    bell: Option<Arc<dyn Bell>>,
    stage: Stage,
}

impl ProcessThread {
    fn run(self) {
        let process = self.job.process;
        let tell = |what: What| {
            let event = ProcessEvent { agent: self.agent.clone(), process, what };
            // A hub that is gone has stopped already.
            self.up.send(event).ok();
        };
        let (cancel, reason) = (&self.cancel, &self.reason);
        let (rings, pulse, stage) = (&self.rings, &self.pulse, &self.stage);
        stage.started();
        let show = |saying: Saying<'_>| {
            if let Some(bell) = &self.bell {
                bell.saying(&self.job.place.conversation, saying);
            }
        };
        let link = Link { up: &tell, cancel, reason, rings, pulse, show: &show, stage };
        let how = contained(|| agent::run(&self.parts, &self.job, &link)).unwrap_or_else(|panic| {
            log::error!("{process} panicked: {panic}");
            contained(|| agent::close_after_panic(&self.parts, &self.job, &link))
                .unwrap_or(How::Panicked(panic))
        });
        if let How::Failed(kind, reason) = &how {
            log::warn!("{process} in {} failed ({kind:?}): {reason}", self.job.place.conversation);
        }
        show(Saying::Over);
        stage.ended(&how);
        tell(What::Exited(how));
    }
}
