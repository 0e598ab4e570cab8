//! One life of the daemon, from its start to its crash: the hub, its jobs and what they share.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use spacebot::agent::{self, AgentParts, AgentPrompts, Job, Link, Pulse, Work};
use spacebot::clock::{Clock, SharedClock, SimulatedClock, SystemClock, Zone};
use spacebot::command::{Command, StatusReport};
use spacebot::config::{AgentConfig, LimitsConfig, LlmConfig};
use spacebot::conversation::{Conversations, Place};
use spacebot::db::{Db, DbError};
use spacebot::event::{How, ProcessEvent, StopReason, What};
use spacebot::exec::Sandbox;
use spacebot::hub;
use spacebot::hub::state::{Action, Event, Hub, RETRIGGER_DEBOUNCE};
use spacebot::id::{AgentId, ConversationId, InstanceId, OutboxId, ProcessId, ProcessKind};
use spacebot::identity::Identity;
use spacebot::llm::{LlmManager, Tuning};
use spacebot::memory::MemoryStore;
use spacebot::message::Inbound;
use spacebot::thread::{Cancel, contained};
use spacebot::tools::workspace::Workspace;

use crate::INSTANCE;
use crate::disk::Disk;
use crate::local_model::local_model;
use crate::model::{decide, meanwhile};
use crate::random::Random;

/// Turns of its conversation that may run while a worker waits for words.
const TURNS_MEANWHILE: usize = 3;

pub struct Pending {
    pub job: Job,
    pub cancel: Cancel,
    pub reason: Arc<OnceLock<StopReason>>,
    pub rings: Receiver<()>,
}

/// A stop request, its reason, and the bell of a turn.
pub type Stoppable = (Cancel, Arc<OnceLock<StopReason>>, Sender<()>);

pub struct Life {
    pub parts: Rc<AgentParts>,
    pub hub: RefCell<Hub>,
    pub jobs: RefCell<Vec<Pending>>,
    /// Stop requests for the job that runs right now.
    pub running: RefCell<BTreeMap<ProcessId, Stoppable>>,
    pub rescan: RefCell<bool>,
    /// Sent, but the disk would not take the note yet; an adapter keeps this in memory.
    pub unrecorded: RefCell<Vec<(OutboxId, ConversationId)>>,
    /// The last turn failed: the next one waits for longer.
    pub failing: RefCell<BTreeSet<ConversationId>>,
}
pub fn agent_id() -> AgentId {
    AgentId::new("main")
}

pub fn place_of(conversation: u64) -> Place {
    Place {
        conversation: ConversationId::new(format!("{INSTANCE}:{conversation}")),
        instance: InstanceId::new(INSTANCE),
        direct: conversation != 0,
        name: "sim".to_owned(),
    }
}

pub fn limits() -> LimitsConfig {
    LimitsConfig {
        max_concurrent_turns: 2,
        max_concurrent_branches: 2,
        max_concurrent_workers: 2,
        // So small that conversations are compacted again and again.
        history_messages: 8,
        ..LimitsConfig::default()
    }
}

pub fn begin(
    folder: &Path,
    clock: &Arc<SimulatedClock>,
    disk: &Arc<Disk>,
    calm: &Arc<AtomicBool>,
    random: &Arc<Mutex<Random>>,
) -> Rc<Life> {
    let shared: SharedClock = clock.clone();
    let db = Db::open_inline(&folder.join("spacebot.db"), Some(disk.clone()))
        .expect("the database opens after every crash");
    let conversations = Conversations::new(db.clone(), shared.clone());
    let config = AgentConfig { limits: limits(), ..AgentConfig::new(agent_id(), "Sim", Zone::utc()) };
    let recovered = agent::recover(&conversations, &config.limits, &config.working_memory).expect("recovery");
    let (calm, random) = (calm.clone(), random.clone());
    let model = local_model(move |request| {
        meanwhile();
        let mut random = random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        decide(request, &mut random, calm.load(Ordering::SeqCst))
    });
    let tuning = Tuning { retry_delay: Duration::ZERO, offline_is_a_model: true, ..Tuning::default() };
    let identity = Identity::load_or_seed(folder).expect("identity");
    let next = conversations.next_process_number().expect("number");
    let parts = AgentParts {
        prompts: AgentPrompts::new(&config, &identity, "/workspace").expect("prompts"),
        memory: MemoryStore::open(db, folder.join("index"), shared.clone()).expect("memory"),
        llm: Arc::new(LlmManager::tuned(&LlmConfig::default(), shared, model, tuning)),
        workspace: Arc::new(Workspace::open(folder).expect("workspace")),
        sandbox: Arc::new(Sandbox::new(&config.sandbox, folder, folder)),
        config,
        conversations,
    };
    let life = Rc::new(Life {
        parts: Rc::new(parts),
        hub: RefCell::new(Hub::new([(agent_id(), limits(), next)])),
        jobs: RefCell::default(),
        running: RefCell::default(),
        rescan: RefCell::default(),
        unrecorded: RefCell::default(),
        failing: RefCell::default(),
    });
    let ready = hub::ready_tasks(&agent_id(), &life.parts).expect("tasks");
    let resumed = recovered.resumed.into_iter().map(|run| Event::Resumed { agent: agent_id(), run });
    let unremembered = hub::unremembered(&agent_id(), &life.parts).expect("memories");
    let id = agent_id();
    let found = hub::events_of(&id, recovered.unfinished).chain(ready).chain(unremembered);
    for event in resumed.chain(found) {
        life.handle(event, clock.monotonic());
    }
    life
}

impl Life {
    pub fn handle(&self, event: Event, now: Duration) {
        let actions = self.hub.borrow_mut().handle(event, now);
        for action in actions {
            self.perform(action, now);
        }
    }

    pub fn perform(&self, action: Action, now: Duration) {
        match action {
            Action::Start { job, .. } => {
                let (rings, rung) = bounded(1);
                let (cancel, reason) = (Cancel::new(), Arc::new(OnceLock::new()));
                self.running.borrow_mut().insert(job.process, (cancel.clone(), reason.clone(), rings));
                self.jobs.borrow_mut().push(Pending { job, cancel, reason, rings: rung });
            }
            Action::Cancel { process, reason, .. } => {
                if let Some((cancel, slot, _)) = self.running.borrow().get(&process) {
                    slot.set(reason).ok();
                    cancel.cancel();
                }
            }
            Action::RingProcess { process, .. } => {
                let running = self.running.borrow();
                let (_, _, rings) = running.get(&process).expect("only a turn that runs is rung");
                rings.try_send(()).ok();
            }
            Action::Answer { to, answer } => to.try_send(answer).expect("room"),
            Action::Report { to, report } => to.try_send(report).expect("room"),
            Action::Told { to, done } => to.try_send(done).expect("room"),
            Action::Look { agent } => {
                let look = Some(agent::look(&self.parts).expect("a look"));
                self.handle(Event::Looked { agent, look }, now);
            }
            Action::Rescan { .. } => *self.rescan.borrow_mut() = true,
            Action::Ring { .. }
            | Action::Carry { .. }
            | Action::Feel { .. }
            | Action::StopIntake
            | Action::Exit => {}
        }
    }

    /// True when it is on disk.
    pub fn take_in(&self, message: Inbound, now: Duration) -> bool {
        let place = Place {
            conversation: message.conversation.clone(),
            instance: message.instance.clone(),
            direct: message.direct,
            name: message.place.clone(),
        };
        let (lane, addressed) = (message.lane(), message.addressed);
        match self.parts.conversations.receive(message) {
            Ok(None) => true,
            Ok(Some(inbox)) => {
                self.handle(Event::Arrived { agent: agent_id(), place, lane, inbox, addressed }, now);
                true
            }
            Err(DbError::Full | DbError::Corrupt(_)) => false,
            Err(error) => panic!("inbox: {error}"),
        }
    }

    /// Runs one waiting job to its end, as its thread would.
    pub fn run_job(&self, index: usize, clock: &SimulatedClock) {
        let Pending { job, cancel, reason, rings } = self.jobs.borrow_mut().remove(index);
        let process = job.process;
        let up = |what: What| {
            let waits = matches!(what, What::Waiting);
            self.handle(Event::Process(ProcessEvent { agent: agent_id(), process, what }), clock.monotonic());
            if waits {
                self.while_waiting(&job, &rings, clock);
            }
        };
        if matches!(job.work, Work::GoOn { waits: true, .. }) {
            self.while_waiting(&job, &rings, clock);
        }
        let pulse = Pulse::new(SystemClock::shared());
        let link =
            Link { show: &|_| {}, pulse: &pulse, up: &up, cancel: &cancel, reason: &reason, rings: &rings };
        let how = contained(|| agent::run(&self.parts, &job, &link))
            .unwrap_or_else(|_| agent::close_after_panic(&self.parts, &job, &link));
        self.running.borrow_mut().remove(&process);
        if process.kind == ProcessKind::Channel {
            let mut failing = self.failing.borrow_mut();
            failing.remove(&job.place.conversation);
            if !matches!(how, How::Turned { .. }) {
                failing.insert(job.place.conversation.clone());
            }
        }
        up(What::Exited(how));
    }

    /// What happens while a worker waits for words: turns of its conversation. Whom they leave waiting is told to
    /// stop, for its thread is that of the test.
    fn while_waiting(&self, job: &Job, rings: &Receiver<()>, clock: &SimulatedClock) {
        for _ in 0..TURNS_MEANWHILE {
            clock.advance(RETRIGGER_DEBOUNCE);
            self.handle(Event::Timer, clock.monotonic());
            let turn = |pending: &Pending| {
                pending.job.process.kind == ProcessKind::Channel && pending.job.place == job.place
            };
            let index = self.jobs.borrow().iter().position(turn);
            if let Some(index) = index.filter(|_| rings.is_empty()) {
                self.run_job(index, clock);
            }
        }
        if rings.is_empty() {
            let (answer, _answered) = bounded(1);
            let reason = "nobody had more for it".to_owned();
            let command = Command::CancelProcess { agent: agent_id(), process: job.process, reason, answer };
            self.handle(Event::Command(command), clock.monotonic());
        }
    }

    pub fn status(&self, now: Duration) -> StatusReport {
        let (answer, answered) = bounded(1);
        self.handle(Event::Command(Command::Status { answer }), now);
        answered.try_recv().expect("a report")
    }
}
