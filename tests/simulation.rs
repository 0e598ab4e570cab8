//! The hub, the processes and a real SQLite file under a simulated clock, model, platform and disk,
//! all driven by one seed on one thread. The daemon crashes between any two commits; inbound is
//! doubled, lost and reordered, and comes while turns run; models fail, call wrong tools and panic. After
//! every step and at the end the promises P1, P2, P3 and P5 are checked.
//!
//! A failing seed is printed; `SPACEBOT_SIM_SEED=<n> cargo test --test simulation` replays it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/local_model.rs"]
mod local_model;
#[path = "support/random.rs"]
mod random;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use local_model::{Say, local_model};
use random::Random;
use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::{ToolResultContent, UserContent};
use serde_json::json;
use spacebot::agent::{self, AgentParts, AgentPrompts, Job, Link, Work};
use spacebot::clock::{Clock, SharedClock, SimulatedClock, Timestamp, Zone};
use spacebot::command::{Command, StatusReport};
use spacebot::config::{AgentConfig, LimitsConfig, LlmConfig};
use spacebot::conversation::{Conversations, Place};
use spacebot::db::rusqlite::Connection;
use spacebot::db::{CommitGate, Db, DbError};
use spacebot::effect::Answer;
use spacebot::error::Kind;
use spacebot::event::{How, ProcessEvent, StopReason, What};
use spacebot::exec::Sandbox;
use spacebot::hub;
use spacebot::hub::state::{Action, Event, Hub};
use spacebot::id::{AgentId, ConversationId, InstanceId, OutboxId, ProcessId, ProcessKind};
use spacebot::identity::Identity;
use spacebot::llm::{LlmManager, Tuning};
use spacebot::memory::MemoryStore;
use spacebot::message::{Content, Delivery, Inbound, Outbox};
use spacebot::prompts;
use spacebot::tasks::{self, NewTask};
use spacebot::thread::{Cancel, contained};
use spacebot::tools::workspace::Workspace;
use spacebot::turn::{self, Part};

const SEEDS: u64 = 200;
const STEPS: usize = 60;
const CONVERSATIONS: u64 = 3;
/// Tasks that wait for approval at the beginning.
const TASKS: usize = 3;
const INSTANCE: &str = "sim";

// ---- the disk -------------------------------------------------------------------------------------

/// Lets commits through until the crash; afterwards nothing is written any more.
struct Disk {
    commits_to_crash: AtomicI64,
    /// The commit of the crash reaches the disk, but nobody hears of it.
    after: AtomicBool,
    crashed: AtomicBool,
    full: AtomicBool,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            commits_to_crash: AtomicI64::new(i64::MAX),
            after: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    fn crash(&self) -> DbError {
        self.crashed.store(true, Ordering::SeqCst);
        DbError::Corrupt("simulated crash".to_owned())
    }
}

impl CommitGate for Disk {
    fn before_commit(&self) -> Result<(), DbError> {
        if self.crashed.load(Ordering::SeqCst) {
            return Err(self.crash());
        }
        if self.full.load(Ordering::SeqCst) {
            return Err(DbError::Full);
        }
        let left = self.commits_to_crash.fetch_sub(1, Ordering::SeqCst);
        if left <= 1 && !self.after.load(Ordering::SeqCst) { Err(self.crash()) } else { Ok(()) }
    }

    fn after_commit(&self) -> Result<(), DbError> {
        if self.commits_to_crash.load(Ordering::SeqCst) <= 0 { Err(self.crash()) } else { Ok(()) }
    }
}

// ---- the model ------------------------------------------------------------------------------------

/// What the simulated model does for a request, from a random number.
fn decide(request: &CompletionRequest, random: &mut Random, calm: bool) -> Result<Vec<Say>, String> {
    let call = |tool: &str, arguments: serde_json::Value| {
        Say::Call("c1".to_owned(), tool.to_owned(), arguments.to_string())
    };
    let has = |tool: &str| request.tools.iter().any(|definition| definition.name.as_str() == tool);
    let (text, after_tools) = last_words(request);
    let roll = if calm { 99 } else { random.below(100) };
    match roll {
        0..=3 => return Err("the simulated provider failed".to_owned()),
        4 => return Ok(vec![call("no_such_tool", json!({}))]),
        5 => return Ok(vec![Say::Call("c1".to_owned(), "reply".to_owned(), "{\"content\": ".to_owned())]),
        6 => panic!("simulated panic"),
        _ => {}
    }
    if has("reply") {
        let words = said(&text);
        if after_tools || words.is_empty() {
            return Ok(vec![call("reply", json!({ "content": "result" }))]);
        }
        let echo = call(
            "reply",
            json!({ "content": words.iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" ") }),
        );
        return Ok(match random.below(if calm { 6 } else { 14 }) {
            6 => vec![call("branch", json!({ "description": format!("think {text}") })), echo],
            7 => vec![call("spawn_worker", json!({ "task": format!("do {}", words.join(" ")) })), echo],
            8 => vec![call("react", json!({ "emoji": "👍" })), echo],
            9 => vec![Say::Text(words.iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" "))],
            // The turn goes on, and may hear what comes meanwhile.
            10..=13 => vec![call("react", json!({ "emoji": "👀" }))],
            _ => vec![echo],
        });
    }
    if has("task_create") && !after_tools && random.chance(40) {
        return Ok(vec![call("task_create", json!({ "title": "a chore" }))]);
    }
    if has("memory_save") && !after_tools && random.chance(40) {
        return Ok(vec![call("memory_save", json!({ "content": format!("note {text}") }))]);
    }
    // A silent run has to name what it saved; some forget that, and are reminded.
    if has("memory_persistence_complete") && (calm || random.chance(80)) {
        let (ids, reason) = (saved(request), "that was all");
        let outcome = if ids.is_empty() { "no_memories" } else { "saved" };
        let end = json!({ "outcome": outcome, "saved_memory_ids": ids, "reason": reason });
        return Ok(vec![call("memory_persistence_complete", end)]);
    }
    if has("set_status") && !after_tools && (calm || random.chance(80)) {
        return Ok(vec![call("set_status", json!({ "status": "done", "kind": "outcome" }))]);
    }
    Ok(vec![Say::Text("concluded".to_owned())])
}

fn last_words(request: &CompletionRequest) -> (String, bool) {
    let (mut text, mut after_tools) = (String::new(), false);
    for message in &request.chat_history {
        let Message::User { content } = message else { continue };
        for part in content {
            match part {
                UserContent::Text(words) => (text, after_tools) = (words.text.clone(), false),
                UserContent::ToolResult(_) => after_tools = true,
                _ => {}
            }
        }
    }
    (text, after_tools)
}

/// The ids that the run was given for what it saved.
fn saved(request: &CompletionRequest) -> Vec<String> {
    let mut ids = Vec::new();
    for message in &request.chat_history {
        let Message::User { content } = message else { continue };
        for result in content {
            let UserContent::ToolResult(result) = result else { continue };
            for part in &result.content {
                let ToolResultContent::Text(text) = part else { continue };
                let value: serde_json::Value = serde_json::from_str(&text.text).unwrap_or_default();
                ids.extend(value["saved"].as_str().map(str::to_owned));
            }
        }
    }
    ids
}

fn said(text: &str) -> Vec<String> {
    let words = |part| match part {
        Part::Said { text, .. } => Some(text),
        _ => None,
    };
    turn::read(text).into_iter().filter_map(words).collect()
}

thread_local! {
    /// What happens in the world while a model thinks; a process runs on the thread of the test.
    static MEANWHILE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

fn meanwhile() {
    let happens = MEANWHILE.take();
    if let Some(mut happens) = happens {
        happens();
        MEANWHILE.set(Some(happens));
    }
}

// ---- the platform ---------------------------------------------------------------------------------

/// How the platform behaves; the broken one exists to show that the checks notice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    CommitThenTell,
    TellThenCommit,
}

#[derive(Default)]
struct Platform {
    sent: Vec<Inbound>,
    /// Platform ids that the platform believes to be taken.
    told: BTreeSet<String>,
    /// Outbox rows that arrived, with how often.
    arrived: BTreeMap<OutboxId, u32>,
    texts: Vec<String>,
}

// ---- one life of the daemon -----------------------------------------------------------------------

struct Pending {
    job: Job,
    cancel: Cancel,
    reason: Arc<OnceLock<StopReason>>,
    messages: (Sender<String>, Receiver<String>),
    rings: Receiver<()>,
}

/// A stop request, its reason, and the bell of a turn.
type Stoppable = (Cancel, Arc<OnceLock<StopReason>>, Sender<()>);

struct Life {
    parts: Rc<AgentParts>,
    hub: RefCell<Hub>,
    jobs: RefCell<Vec<Pending>>,
    /// Stop requests for the job that runs right now.
    running: RefCell<BTreeMap<ProcessId, Stoppable>>,
    rescan: RefCell<bool>,
    /// Sent, but the disk would not take the note yet; an adapter keeps this in memory.
    unrecorded: RefCell<Vec<(OutboxId, ConversationId)>>,
    /// The last turn failed: the next one waits for longer.
    failing: RefCell<BTreeSet<ConversationId>>,
}

struct World {
    random: Random,
    clock: Arc<SimulatedClock>,
    folder: PathBuf,
    disk: Arc<Disk>,
    life: Rc<Life>,
    platform: Platform,
    order: Order,
    calm: Arc<AtomicBool>,
    model_random: Arc<Mutex<Random>>,
    crashes: usize,
}

fn agent_id() -> AgentId {
    AgentId::new("main")
}

fn place_of(conversation: u64) -> Place {
    Place {
        conversation: ConversationId::new(format!("{INSTANCE}:{conversation}")),
        instance: InstanceId::new(INSTANCE),
        direct: conversation != 0,
        name: "sim".to_owned(),
    }
}

fn limits() -> LimitsConfig {
    LimitsConfig {
        max_concurrent_turns: 2,
        max_concurrent_branches: 2,
        max_concurrent_workers: 2,
        // So small that conversations are compacted again and again.
        history_messages: 8,
        ..LimitsConfig::default()
    }
}

fn begin(
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
    fn handle(&self, event: Event, now: Duration) {
        let actions = self.hub.borrow_mut().handle(event, now);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&self, action: Action) {
        match action {
            Action::Start { job, .. } => {
                let (messages, (rings, rung)) = (bounded(8), bounded(1));
                let (cancel, reason) = (Cancel::new(), Arc::new(OnceLock::new()));
                self.running.borrow_mut().insert(job.process, (cancel.clone(), reason.clone(), rings));
                self.jobs.borrow_mut().push(Pending { job, cancel, reason, messages, rings: rung });
            }
            Action::Cancel { process, reason, .. } => {
                if let Some((cancel, slot, _)) = self.running.borrow().get(&process) {
                    slot.set(reason).ok();
                    cancel.cancel();
                }
            }
            Action::Steer { to, process, .. } => {
                to.try_send(Answer::Done(process.to_string())).expect("room")
            }
            Action::RingTurn { process, .. } => {
                let running = self.running.borrow();
                let (_, _, rings) = running.get(&process).expect("only a turn that runs is rung");
                rings.try_send(()).ok();
            }
            Action::Answer { to, answer } => to.try_send(answer).expect("room"),
            Action::Report { to, report } => to.try_send(report).expect("room"),
            Action::Told { to, done } => to.try_send(done).expect("room"),
            Action::Rescan { .. } => *self.rescan.borrow_mut() = true,
            Action::Ring { .. }
            | Action::Look { .. }
            | Action::Carry { .. }
            | Action::StopIntake
            | Action::Exit => {}
        }
    }

    /// True when it is on disk.
    fn take_in(&self, message: Inbound, now: Duration) -> bool {
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
    fn run_job(&self, index: usize, clock: &SimulatedClock) {
        let Pending { job, cancel, reason, messages, rings } = self.jobs.borrow_mut().remove(index);
        let process = job.process;
        let up = |what: What| {
            self.handle(Event::Process(ProcessEvent { agent: agent_id(), process, what }), clock.monotonic());
        };
        let link = Link { up: &up, cancel: &cancel, reason: &reason, messages: &messages.1, rings: &rings };
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

    fn status(&self, now: Duration) -> StatusReport {
        let (answer, answered) = bounded(1);
        self.handle(Event::Command(Command::Status { answer }), now);
        answered.try_recv().expect("a report")
    }
}

impl World {
    fn new(seed: u64, folder: PathBuf, order: Order) -> Self {
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let (disk, calm) = (Disk::new(), Arc::new(AtomicBool::new(false)));
        let model_random = Arc::new(Mutex::new(Random(seed ^ 0x5555)));
        let life = begin(&folder, &clock, &disk, &calm, &model_random);
        for number in 0..TASKS {
            let new = NewTask::new(format!("chore {number}"), tasks::Actor::Operator);
            life.parts.tasks().create(NewTask { place: Some(place_of(1)), ..new }).expect("a task");
        }
        let platform = Platform::default();
        Self {
            random: Random(seed),
            clock,
            folder,
            disk,
            life,
            platform,
            order,
            calm,
            model_random,
            crashes: 0,
        }
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=18 => self.send_new(None),
            19..=24 => self.send_command(),
            25..=34 => self.send_again(),
            35..=64 => self.run_one(),
            65..=79 => self.deliver(),
            80..=91 => {
                let milliseconds = self.random.below(3_000);
                self.clock.advance(Duration::from_millis(milliseconds));
                self.life.handle(Event::Timer, self.now());
            }
            92..=94 => self.cancel_something(),
            95..=96 => {
                let full = !self.disk.full.load(Ordering::SeqCst);
                self.disk.full.store(full, Ordering::SeqCst);
            }
            _ => {
                // The crash comes with one of the next commits.
                self.disk.after.store(self.random.chance(50), Ordering::SeqCst);
                let commits = i64::try_from(1 + self.random.below(6)).expect("small");
                self.disk.commits_to_crash.store(commits, Ordering::SeqCst);
            }
        }
        if self.disk.crashed.load(Ordering::SeqCst) {
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.crashes += 1;
        self.disk = Disk::new();
        self.life = begin(&self.folder, &self.clock, &self.disk, &self.calm, &self.model_random);
    }

    /// `/status`, or the approval of some task, which may be any number of times approved before.
    fn send_command(&mut self) {
        let counts = self.life.parts.tasks().counts().expect("read");
        let tasks: usize = counts.iter().map(|(_, count)| count).sum();
        let which = self.random.below(tasks as u64 + 1);
        self.send_new(Some(if which == 0 { "/status".to_owned() } else { format!("/approve {which}") }));
    }

    fn send_new(&mut self, command: Option<String>) {
        let conversation = match command {
            None => self.random.below(CONVERSATIONS),
            Some(_) => 1,
        };
        let message = self.compose(conversation, command);
        // Some are lost on the way and come later.
        if !self.random.chance(15) {
            self.take_in(message);
        }
    }

    fn compose(&mut self, conversation: u64, command: Option<String>) -> Inbound {
        let number = self.platform.sent.len();
        let message = Inbound {
            instance: InstanceId::new(INSTANCE),
            platform_id: format!("m{number}"),
            conversation: ConversationId::new(format!("{INSTANCE}:{conversation}")),
            agent: None,
            sender_id: "u".to_owned(),
            sender_name: "Una".to_owned(),
            content: command.unwrap_or_else(|| format!("m{number}")),
            sent_at: self.clock.now(),
            direct: conversation != 0,
            addressed: self.random.chance(30),
            place: "sim".to_owned(),
        };
        self.platform.sent.push(message.clone());
        message
    }

    fn send_again(&mut self) {
        if self.platform.sent.is_empty() {
            return;
        }
        let which = self.random.below(self.platform.sent.len() as u64);
        let message = self.platform.sent[usize::try_from(which).expect("index")].clone();
        self.take_in(message);
    }

    fn take_in(&mut self, message: Inbound) {
        let id = message.platform_id.clone();
        if self.order == Order::TellThenCommit {
            self.platform.told.insert(id.clone());
        }
        if self.life.take_in(message, self.now()) {
            self.platform.told.insert(id);
        }
    }

    /// Messages for the conversation of this job, which come while it runs; the ids of those that were taken.
    fn more_comes(&mut self, job: &Job) -> Rc<RefCell<Vec<String>>> {
        let taken = Rc::new(RefCell::new(Vec::new()));
        let number =
            (0..CONVERSATIONS).find(|number| place_of(*number).conversation == job.place.conversation);
        if let Some(conversation) = number.filter(|_| self.random.chance(50)) {
            let count = 1 + self.random.below(2);
            let mut coming: VecDeque<_> = (0..count).map(|_| self.compose(conversation, None)).collect();
            let (life, clock, done) = (self.life.clone(), self.clock.clone(), taken.clone());
            let mut random = Random(self.random.next());
            MEANWHILE.set(Some(Box::new(move || {
                let Some(message) = coming.pop_front_if(|_| random.chance(70)) else { return };
                let id = message.platform_id.clone();
                if life.take_in(message, clock.monotonic()) {
                    done.borrow_mut().push(id);
                }
            })));
        }
        taken
    }

    fn run_one(&mut self) {
        let count = self.life.jobs.borrow().len();
        if count == 0 {
            return;
        }
        let index = usize::try_from(self.random.below(count as u64)).expect("index");
        let job = self.life.jobs.borrow()[index].job.clone();
        let is_channel = job.process.kind == ProcessKind::Channel;
        let full = self.disk.full.load(Ordering::SeqCst);
        // Branches and workers wait for space in real time; here they get it.
        self.disk.full.store(full && is_channel, Ordering::SeqCst);
        let taken = self.more_comes(&job);
        self.life.run_job(index, &self.clock);
        MEANWHILE.set(None);
        self.platform.told.extend(taken.take());
        self.disk.full.store(full, Ordering::SeqCst);
    }

    /// What an adapter without idempotency keys does.
    fn deliver(&mut self) {
        let conversations = &self.life.parts.conversations;
        let mut unrecorded = self.life.unrecorded.borrow_mut();
        unrecorded.retain(|(id, conversation)| {
            conversations.record(&[*id], conversation, Delivery::Sent { platform_id: None }).is_err()
        });
        let instance = InstanceId::new(INSTANCE);
        let pending = conversations.pending(&instance, None, OutboxId(0), 4).expect("read");
        for outbound in pending {
            if conversations.record(&[outbound.id], &outbound.conversation, Delivery::Sending).is_err() {
                return;
            }
            *self.platform.arrived.entry(outbound.id).or_default() += 1;
            if let Content::Text { text } = &outbound.content {
                self.platform.texts.push(text.clone());
            }
            if conversations
                .record(&[outbound.id], &outbound.conversation, Delivery::Sent { platform_id: None })
                .is_err()
            {
                unrecorded.push((outbound.id, outbound.conversation));
                return;
            }
        }
    }

    fn cancel_something(&mut self) {
        let processes: Vec<_> = self.life.jobs.borrow().iter().map(|pending| pending.job.process).collect();
        if processes.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(processes.len() as u64)).expect("index");
        let (answer, _answered) = bounded(1);
        let command = Command::CancelProcess {
            agent: agent_id(),
            process: processes[index],
            reason: "simulated".to_owned(),
            answer,
        };
        self.life.handle(Event::Command(command), self.now());
    }

    /// Lets everything come to rest without further faults.
    fn settle(&mut self) -> Result<(), String> {
        self.calm.store(true, Ordering::SeqCst);
        self.disk.full.store(false, Ordering::SeqCst);
        self.disk.commits_to_crash.store(i64::MAX, Ordering::SeqCst);
        let again: VecDeque<_> = self
            .platform
            .sent
            .iter()
            .filter(|message| !self.platform.told.contains(&message.platform_id))
            .cloned()
            .collect();
        again.into_iter().for_each(|message| self.take_in(message));
        for _ in 0..10_000 {
            while !self.life.jobs.borrow().is_empty() {
                self.life.run_job(0, &self.clock);
            }
            (0..STEPS).for_each(|_| self.deliver());
            let Some(next) = self.life.hub.borrow().next_deadline() else {
                return if self.life.jobs.borrow().is_empty() {
                    Ok(())
                } else {
                    Err("jobs appear from nowhere".to_owned())
                };
            };
            self.clock.advance(next.saturating_sub(self.now()) + Duration::from_millis(1));
            self.life.handle(Event::Timer, self.now());
        }
        Err("P4: it does not come to rest".to_owned())
    }

    // ---- the promises -----------------------------------------------------------------------------

    fn check_step(&self) -> Result<(), String> {
        if let Some((id, count)) = self.platform.arrived.iter().find(|(_, count)| **count > 1) {
            return Err(format!("P2: answer {id} arrived {count} times"));
        }
        let mut running: BTreeMap<(String, ProcessKind, bool), usize> = BTreeMap::new();
        for pending in self.life.jobs.borrow().iter() {
            let commands = matches!(pending.job.work, Work::Commands { .. });
            let key = (pending.job.place.conversation.to_string(), pending.job.process.kind, commands);
            *running.entry(key).or_default() += 1;
        }
        for ((conversation, kind, _), count) in running {
            // Of the compactors, one for the window and one for memories, of what has left it or of the rest.
            let most = if kind == ProcessKind::Channel { 1 } else { 2 };
            if count > most {
                return Err(format!("P5: {count} of {kind:?} in {conversation}"));
            }
        }
        self.check_never_blocked()?;
        self.check_waits()?;
        self.check_windows()
    }

    /// In company, a message waits for others no longer than it may.
    fn check_waits(&self) -> Result<(), String> {
        let (place, life) = (place_of(0), &self.life);
        let here = |pending: &Pending| pending.job.place == place;
        if life.failing.borrow().contains(&place.conversation) || life.jobs.borrow().iter().any(here) {
            return Ok(());
        }
        let sql = "SELECT min(received_at) FROM inbox WHERE conversation_id = ?1 AND answered_at IS NULL";
        let read = |connection: &Connection| {
            Ok(connection
                .query_row(sql, [place.conversation.as_str()], |row| row.get::<_, Option<i64>>(0))?)
        };
        let Some(oldest) = life.parts.conversations.db().read(read).expect("read") else { return Ok(()) };
        let waited = self.clock.now().since(Timestamp(oldest));
        if waited > limits().coalescing.max_wait && life.status(self.now()).waiting_turns == 0 {
            return Err(format!("a message in company has waited for {waited:?}"));
        }
        Ok(())
    }

    /// Every line stands in the window or behind exactly one summary, in an archive that holds it.
    fn check_windows(&self) -> Result<(), String> {
        let conversations = &self.life.parts.conversations;
        for number in 0..CONVERSATIONS {
            let conversation = ConversationId::new(format!("{INSTANCE}:{number}"));
            let said = conversations.find(&conversation, &[], None, usize::MAX >> 1).expect("read").lines;
            let window = conversations.window(&conversation).expect("read");
            let mut behind = Vec::new();
            for summary in &window.summaries {
                let lines = conversations.lines(&conversation, summary.first_line, summary.last_line);
                behind.extend(lines.expect("read").iter().map(|line| line.id));
            }
            let seen: Vec<i64> = behind.into_iter().chain(window.lines.iter().map(|line| line.id)).collect();
            if !seen.iter().eq(said.iter().map(|line| &line.id)) {
                return Err(format!("lines of {conversation} are lost or doubled: {seen:?}"));
            }
        }
        Ok(())
    }

    /// P3: a conversation with a message and a free turn has a turn, whatever else runs in it.
    fn check_never_blocked(&self) -> Result<(), String> {
        let report = self.life.status(self.now());
        let turns = self
            .life
            .jobs
            .borrow()
            .iter()
            .filter(|pending| pending.job.process.kind == ProcessKind::Channel)
            .count();
        if report.waiting_turns > 0 && turns < limits().max_concurrent_turns {
            return Err(format!("P3: {} conversations wait while {turns} turns run", report.waiting_turns));
        }
        Ok(())
    }

    /// Every start and end of a run, every memory and every turn that failed is one event, whatever crashed.
    fn check_events(&self, read: &dyn Fn(&str) -> Vec<String>) -> Result<(), String> {
        let ends = "SELECT run FROM (
                SELECT 'branch:' || id AS run FROM branch_runs UNION ALL SELECT 'worker:' || id FROM worker_runs) runs
            WHERE (SELECT count(*) FROM working_memory_events e WHERE e.run = runs.run
                   AND kind IN ('branch_completed', 'worker_completed', 'error')) <> 1";
        let starts = "SELECT 'worker:' || id FROM worker_runs
            WHERE (SELECT count(*) FROM working_memory_events
                   WHERE run = 'worker:' || worker_runs.id AND kind = 'worker_spawned') <> 1";
        let memories = "SELECT 'not as many' WHERE (SELECT count(*) FROM memories)
               <> (SELECT count(*) FROM working_memory_events WHERE kind = 'memory_saved')";
        let strangers = "SELECT kind || ' ' || text FROM working_memory_events
            WHERE run LIKE 'branch:%' AND substr(run, 8) NOT IN (SELECT id FROM branch_runs)
               OR run LIKE 'worker:%' AND substr(run, 8) NOT IN (SELECT id FROM worker_runs)";
        // The simulated branch saves at most one, also when it was cut off and went on.
        let twice =
            "SELECT run FROM working_memory_events WHERE kind = 'memory_saved' AND run LIKE 'branch:%'
            GROUP BY run HAVING count(*) > 1";
        // Each line is read once: what was kept of it are its words.
        let doubled = "SELECT content FROM memories WHERE source LIKE 'agent:compactor:%'
            GROUP BY content HAVING count(*) > 1";
        let endless = "SELECT 'worker ' || id FROM worker_runs WHERE continuations > 3
            UNION ALL SELECT 'branch ' || id FROM branch_runs WHERE continuations > 3";
        let cases = [
            ("ends", ends),
            ("starts", starts),
            ("memories", memories),
            ("causes", strangers),
            ("saves", twice),
            ("readings", doubled),
            ("continuations", endless),
        ];
        for (what, sql) in cases {
            let found = read(sql);
            if !found.is_empty() {
                return Err(format!("events and {what} differ: {found:?}"));
            }
        }
        let kinds = [Kind::Transient, Kind::RateLimited, Kind::Full, Kind::Bug, Kind::Invalid];
        let sorry = |said: &&String| kinds.iter().any(|kind| said.contains(prompts::notice(kind.notice())));
        let apologies = read("SELECT content FROM outbox").iter().filter(sorry).count();
        let told =
            read("SELECT run FROM working_memory_events WHERE kind = 'error' AND run LIKE 'channel:%'");
        if apologies != told.len() {
            return Err(format!("{apologies} turns could not be answered, told was of {told:?}"));
        }
        Ok(())
    }

    fn count(&self, sql: &str) -> usize {
        let read = |connection: &Connection| Ok(connection.query_row(sql, [], |row| row.get(0))?);
        self.life.parts.conversations.db().read(read).expect("read")
    }

    fn compacted(&self) -> [usize; 3] {
        let count = |sql| self.count(sql);
        [
            count("SELECT count(*) FROM conversation_summaries WHERE content IS NOT NULL"),
            count("SELECT count(*) FROM conversation_summaries WHERE content IS NULL"),
            count("SELECT count(*) FROM conversation_archives WHERE unread = 0"),
        ]
    }

    fn check_end(&self) -> Result<(), String> {
        let read = |sql: &str| -> Vec<String> {
            let db = self.life.parts.conversations.db();
            db.read(|connection| {
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
                Ok(rows)
            })
            .expect("read")
        };
        let answered: BTreeSet<String> =
            read("SELECT platform_id FROM inbox WHERE answered_at IS NOT NULL").into_iter().collect();
        for id in &self.platform.told {
            if !answered.contains(id) {
                return Err(format!("P1: {id} was taken and is not answered"));
            }
        }
        let inbox = read("SELECT platform_id FROM inbox");
        if inbox.len() != inbox.iter().collect::<BTreeSet<_>>().len() {
            return Err("P2: a message stands in the inbox twice".to_owned());
        }
        let outbox = read("SELECT content FROM outbox");
        for id in &answered {
            let word = format!("re:{id}");
            let count =
                outbox.iter().flat_map(|text| text.split(['"', ' '])).filter(|text| **text == word).count();
            if count > 1 {
                return Err(format!("P2: {id} was answered {count} times"));
            }
        }
        // A record's id is that of its run, shifted, and its number.
        let twice = read(
            "SELECT m.value || ' by ' || group_concat(j.id >> 16) FROM run_journal j, json_each(j.payload, '$.messages') m
             WHERE j.kind IN ('start', 'route')
                 AND EXISTS (SELECT 1 FROM run_journal e WHERE e.kind = 'end' AND e.id >> 16 = j.id >> 16)
             GROUP BY m.value HAVING count(*) > 1",
        );
        if !twice.is_empty() {
            return Err(format!("P2: messages that several turns have answered: {twice:?}"));
        }
        let open = read("SELECT state FROM outbox WHERE state IN ('pending', 'sending')");
        if !open.is_empty() {
            return Err(format!("P1: {} answers were never sent", open.len()));
        }
        let runs = read(
            "SELECT 'branch ' || id FROM branch_runs WHERE relayed = 0 OR status = 'running'
             UNION ALL SELECT 'worker ' || id FROM worker_runs WHERE relayed = 0 OR status = 'running'",
        );
        if !runs.is_empty() {
            return Err(format!("P1: results that nobody heard of: {runs:?}"));
        }
        self.check_events(&read)?;
        let begun =
            read("SELECT number || ' is ' || status FROM tasks WHERE status IN ('ready', 'in_progress')");
        if !begun.is_empty() {
            return Err(format!("tasks that nobody takes: {begun:?}"));
        }
        // What is final is told once: a success, a stop, and the failure after which nothing is tried.
        let told = read(
            "SELECT t.number || ': ' || final || ' ends, told ' || told FROM
                 (SELECT number, (SELECT count(*) FROM task_attempts a WHERE a.task = number AND (outcome IN
                     ('success', 'partial', 'cancelled') OR attempt >= 3)) AS final,
                 (SELECT count(*) FROM conversation_messages WHERE role = 'event'
                     AND instr(content, 'task=\"task #' || number || ': ') > 0) AS told FROM tasks) t
             WHERE final <> told",
        );
        if !told.is_empty() {
            return Err(format!("results of tasks: {told:?}"));
        }
        let attempts =
            read("SELECT 'task ' || task FROM task_attempts WHERE attempt > 3 OR ended_at IS NULL");
        if !attempts.is_empty() {
            return Err(format!("attempts over the limit or never ended: {attempts:?}"));
        }
        if !self.life.status(self.now()).busy.is_empty() {
            return Err("P4: the hub still holds conversations".to_owned());
        }
        Ok(())
    }
}

/// What one seed did, for the summary.
#[derive(Default)]
struct Told {
    messages: usize,
    crashes: usize,
    /// Attempts at tasks.
    attempts: usize,
    /// Summaries that were made, markers that were put in an emergency, archives that were read.
    compacted: [usize; 3],
    /// Messages that reached a running turn, and turns with several messages from the start.
    company: [usize; 2],
}

fn play(seed: u64, order: Order) -> Result<Told, String> {
    // A RAM disk is quicker; the simulated crash does not depend on the medium.
    let base = Path::new("/dev/shm");
    let folder =
        if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() }.expect("folder");
    let mut world = World::new(seed, folder.path().to_owned(), order);
    for step in 0..STEPS {
        world.step();
        world.check_step().map_err(|error| format!("step {step}: {error}"))?;
    }
    world.settle()?;
    world.check_step()?;
    world.check_end()?;
    let board = world.life.parts.tasks();
    let tasks = board.list(&tasks::Filter { limit: tasks::LISTED_MAX, ..tasks::Filter::default() });
    let attempts = |task: &tasks::Task| board.attempts(task.number).expect("read").len();
    let attempts = tasks.expect("read").iter().map(attempts).sum();
    let (messages, crashes) = (world.platform.sent.len(), world.crashes);
    let lists = |kind: &str, least: usize| {
        world.count(&format!("SELECT count(*) FROM run_journal WHERE kind = '{kind}' AND json_array_length(payload, '$.messages') >= {least}"))
    };
    let company = [lists("route", 1), lists("start", 2)];
    Ok(Told { messages, crashes, attempts, compacted: world.compacted(), company })
}

fn wanted(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn the_promises_hold_for_every_seed() {
    // Simulated panics are part of the game and would fill the screen.
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("simulated panic") {
            eprintln!("{text}");
        }
    }));
    let seeds: Vec<u64> = match wanted("SPACEBOT_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=wanted("SPACEBOT_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let mut sum = Told::default();
    for seed in &seeds {
        match play(*seed, Order::CommitThenTell) {
            Ok(told) => {
                sum.messages += told.messages;
                sum.crashes += told.crashes;
                sum.attempts += told.attempts;
                sum.company.iter_mut().zip(told.company).for_each(|(sum, told)| *sum += told);
                sum.compacted.iter_mut().zip(told.compacted).for_each(|(sum, told)| *sum += told);
            }
            Err(error) => panic!(
                "seed {seed}: {error}\nreplay with SPACEBOT_SIM_SEED={seed} cargo test --test simulation"
            ),
        }
    }
    let Told { messages, crashes, attempts, compacted, company } = sum;
    println!(
        "{} seeds, {messages} messages, {crashes} crashes, {attempts} attempts at tasks; summaries, \
         markers, archives read: {compacted:?}; heard while a turn ran, batches: {company:?}",
        seeds.len()
    );
    assert!(seeds.len() == 1 || attempts > seeds.len() / 4, "hardly any task was begun");
    let lively = company.iter().all(|count| *count > seeds.len() / 4);
    assert!(seeds.len() == 1 || lively, "hardly anything was heard on the way or together: {company:?}");
    let busy = compacted[0] > seeds.len() && compacted[2] > seeds.len();
    assert!(seeds.len() == 1 || busy, "hardly anything was compacted: {compacted:?}");
    assert!(seeds.len() == 1 || crashes > seeds.len() / 4, "the disk hardly ever crashed");
}

#[test]
fn telling_the_platform_before_the_commit_is_noticed() {
    let caught = (1..=SEEDS).find_map(|seed| play(seed, Order::TellThenCommit).err());
    let error = caught.expect("a broken commit order went unnoticed");
    assert!(error.contains("P1"), "{error}");
}

#[test]
fn a_seed_replays_exactly() {
    let texts = |seed| {
        let folder = tempfile::tempdir().expect("folder");
        let mut world = World::new(seed, folder.path().to_owned(), Order::CommitThenTell);
        (0..STEPS).for_each(|_| world.step());
        world.settle().expect("rest");
        world.platform.texts
    };
    assert_eq!(texts(7), texts(7));
}
