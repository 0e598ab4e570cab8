//! Jobs in the hub, the processes and a real SQLite file under a simulated model and disk and a clock that
//! is set to and fro, driven by one seed on one thread. The daemon crashes between any two commits.
//!
//! A failing seed is printed; `SPACEBOT_SIM_SEED=<n> cargo test --test cron_simulation` replays it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/local_model.rs"]
mod local_model;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use local_model::{Say, local_model};
use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::UserContent;
use serde_json::json;
use spacebot::agent::{self, AgentParts, AgentPrompts, Job, Link, Pulse, Work};
use spacebot::clock::{Clock, SharedClock, SystemClock, Timestamp, Zone};
use spacebot::config::{AgentConfig, LimitsConfig, LlmConfig};
use spacebot::conversation::Conversations;
use spacebot::cron::schedule::ActiveHours;
use spacebot::cron::{Execution, NewJob, Target};
use spacebot::db::{CommitGate, Db, DbError};
use spacebot::event::{ProcessEvent, StopReason, What};
use spacebot::exec::Sandbox;
use spacebot::hub::state::{Action, Event, Hub};
use spacebot::id::{AgentId, ConversationId, InstanceId, OutboxId, ProcessId};
use spacebot::identity::Identity;
use spacebot::llm::{LlmManager, Tuning};
use spacebot::memory::MemoryStore;
use spacebot::message::{Content, Outbox};
use spacebot::thread::{Cancel, contained};
use spacebot::tools::workspace::Workspace;
use spacebot::turn::{self, Part};

const SEEDS: u64 = 60;
const STEPS: usize = 120;
const INSTANCE: &str = "sim";
/// The night of 2026-10-25 in Berlin, when 02:00 to 03:00 comes twice.
const START: i64 = 1_792_882_800_000;

/// SplitMix64: small, good enough, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A wall clock that can be set, and one that cannot.
struct Clocks {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl Clocks {
    fn pass(&self, milliseconds: i64) {
        self.wall.fetch_add(milliseconds, Ordering::SeqCst);
        self.monotonic.fetch_add(milliseconds, Ordering::SeqCst);
    }

    fn set(&self, wall: i64) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock for Clocks {
    fn now(&self) -> Timestamp {
        Timestamp(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.monotonic.load(Ordering::SeqCst)).unwrap())
    }
}

/// Lets commits through until the crash; afterwards nothing is written any more.
struct Disk {
    commits_to_crash: AtomicI64,
    crashed: AtomicBool,
    full: AtomicBool,
}

impl Disk {
    fn sound() -> Arc<Self> {
        Arc::new(Self {
            commits_to_crash: AtomicI64::new(i64::MAX),
            crashed: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }
}

impl CommitGate for Disk {
    fn before_commit(&self) -> Result<(), DbError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(DbError::Full);
        }
        if self.commits_to_crash.fetch_sub(1, Ordering::SeqCst) <= 1 {
            self.crashed.store(true, Ordering::SeqCst);
            return Err(DbError::Corrupt("simulated crash".to_owned()));
        }
        Ok(())
    }

    fn after_commit(&self) -> Result<(), DbError> {
        Ok(())
    }
}

/// What the message of a job says: its name and its slot.
fn slot_of(request: &CompletionRequest) -> Option<String> {
    let texts = request.chat_history.iter().filter_map(|message| match message {
        Message::User { content } => Some(content),
        _ => None,
    });
    let parts = texts.flatten().filter_map(|content| match content {
        UserContent::Text(text) => Some(turn::read(&text.text)),
        _ => None,
    });
    parts.flatten().find_map(|part| match part {
        Part::Said { sender, at, .. } => Some(format!("{sender}@{}", at.0)),
        _ => None,
    })
}

fn decide(request: &CompletionRequest, random: &mut Random, calm: bool) -> Result<Vec<Say>, String> {
    let call = |tool: &str, arguments: serde_json::Value| {
        Say::Call("c1".to_owned(), tool.to_owned(), arguments.to_string())
    };
    let has = |tool: &str| request.tools.iter().any(|definition| definition.name.as_str() == tool);
    let roll = if calm { 99 } else { random.below(100) };
    if roll == 0 {
        panic!("simulated panic");
    }
    if has("set_outcome") {
        let outcome = call("set_outcome", json!({ "content": slot_of(request).unwrap_or_default() }));
        return Ok(match roll {
            1..=9 => vec![call("no_such_tool", json!({}))],
            10..=19 => vec![Say::Text("nothing to say".to_owned())],
            20..=34 => vec![outcome, call("branch", json!({ "description": "think" }))],
            35..=44 => vec![call("spawn_worker", json!({ "task": "work" }))],
            _ => vec![outcome],
        });
    }
    if has("set_status") && random.chance(50) {
        return Ok(vec![call("set_status", json!({ "status": "done", "kind": "outcome" }))]);
    }
    Ok(vec![Say::Text("concluded".to_owned())])
}

struct Pending {
    job: Job,
    cancel: Cancel,
    reason: Arc<OnceLock<StopReason>>,
}

type Stop = (Cancel, Arc<OnceLock<StopReason>>);

/// One life of the daemon.
struct Life {
    parts: AgentParts,
    hub: RefCell<Hub>,
    jobs: RefCell<Vec<Pending>>,
    /// Stop requests for the job that runs right now.
    running: RefCell<BTreeMap<ProcessId, Stop>>,
    looks: RefCell<usize>,
}

struct World {
    random: Random,
    clock: Arc<Clocks>,
    folder: PathBuf,
    disk: Arc<Disk>,
    calm: Arc<AtomicBool>,
    model_random: Arc<Mutex<Random>>,
    life: Life,
    crashes: usize,
    /// As far ahead as the clock ever was: reminders may have been made then.
    latest: Timestamp,
    /// Executions whose first turn has begun.
    begun: RefCell<BTreeSet<i64>>,
    reminders: u64,
}

fn agent_id() -> AgentId {
    AgentId::new("main")
}

fn target() -> Target {
    Target {
        conversation: ConversationId::new("sim:c"),
        instance: InstanceId::new(INSTANCE),
        direct: true,
        name: "sim".to_owned(),
    }
}

fn begin(
    folder: &Path,
    clock: &Arc<Clocks>,
    disk: &Arc<Disk>,
    calm: &Arc<AtomicBool>,
    random: &Arc<Mutex<Random>>,
) -> Life {
    let shared: SharedClock = clock.clone();
    let db = Db::open_inline(&folder.join("spacebot.db"), Some(disk.clone())).expect("the database opens");
    let conversations = Conversations::new(db.clone(), shared.clone());
    let unfinished = conversations.recover("interrupted").expect("recovery").unfinished;
    assert!(unfinished.is_empty(), "a run is not taken up by the inbox: {unfinished:?}");
    let (calm, random) = (calm.clone(), random.clone());
    let model = local_model(move |request| {
        let mut random = random.lock().unwrap_or_else(PoisonError::into_inner);
        decide(request, &mut random, calm.load(Ordering::SeqCst))
    });
    let limits = LimitsConfig { max_concurrent_turns: 2, max_turns: 2, ..LimitsConfig::default() };
    let zone = "Europe/Berlin".parse::<Zone>().expect("a zone");
    let config = AgentConfig { limits: limits.clone(), ..AgentConfig::new(agent_id(), "Sim", zone) };
    let identity = Identity::load_or_seed(folder).expect("identity");
    let next = conversations.next_process_number().expect("number");
    let tuning = Tuning { retry_delay: Duration::ZERO, ..Tuning::default() };
    let parts = AgentParts {
        prompts: AgentPrompts::new(&config, &identity, "/workspace").expect("prompts"),
        memory: MemoryStore::open(db, folder.join("index"), shared.clone()).expect("memory"),
        llm: Arc::new(LlmManager::tuned(&LlmConfig::default(), shared, model, tuning)),
        workspace: Arc::new(Workspace::open(folder).expect("workspace")),
        sandbox: Arc::new(Sandbox::new(&config.sandbox, folder, folder)),
        config,
        conversations,
    };
    agent::end_cut_off_runs(&parts).expect("recovery of jobs");
    Life {
        parts,
        hub: RefCell::new(Hub::new([(agent_id(), limits, next)])),
        jobs: RefCell::default(),
        running: RefCell::default(),
        looks: RefCell::default(),
    }
}

impl World {
    fn new(seed: u64, folder: &Path) -> Self {
        let clock = Arc::new(Clocks { wall: AtomicI64::new(START), monotonic: AtomicI64::new(1_000) });
        let (disk, calm) = (Disk::sound(), Arc::new(AtomicBool::new(false)));
        let model_random = Arc::new(Mutex::new(Random(seed ^ 0x5555)));
        let life = begin(folder, &clock, &disk, &calm, &model_random);
        let world = Self {
            random: Random(seed),
            clock,
            folder: folder.to_owned(),
            disk,
            calm,
            model_random,
            life,
            crashes: 0,
            latest: Timestamp(START),
            begun: RefCell::default(),
            reminders: 0,
        };
        world.create("minutes", None, Some(120), false);
        world.create("expression", Some("*/7 * * * *"), None, false);
        world.create("rare", Some("30 2 * * *"), None, false);
        world.handle(Event::ClockChanged);
        world
    }

    fn create(&self, name: &str, expression: Option<&str>, seconds: Option<u64>, once: bool) -> bool {
        let new = NewJob {
            name: Some(name.to_owned()),
            prompt: format!("do {name}."),
            expression: expression.map(str::to_owned),
            interval: seconds.map(Duration::from_secs),
            active: ActiveHours::ALWAYS,
            once,
            target: target(),
            timeout: Duration::from_secs(100),
        };
        self.life.parts.cron().create(new, self.clock.now()).is_ok()
    }

    fn handle(&self, event: Event) {
        let actions = self.life.hub.borrow_mut().handle(event, self.clock.monotonic());
        for action in actions {
            match action {
                Action::Start { job, .. } => self.start(job),
                Action::Cancel { process, reason, .. } => self.cancel(process, reason),
                Action::Look { .. } => *self.life.looks.borrow_mut() += 1,
                Action::Answer { to, answer } => to.try_send(answer).expect("room"),
                Action::Ring { .. } | Action::Rescan { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn start(&self, job: Job) {
        if let Work::Turn(turn) = &job.work {
            self.begun.borrow_mut().extend(turn.execution);
        }
        let (cancel, reason) = (Cancel::new(), Arc::new(OnceLock::new()));
        self.life.jobs.borrow_mut().push(Pending { job, cancel, reason });
    }

    fn cancel(&self, process: ProcessId, reason: StopReason) {
        let jobs = self.life.jobs.borrow();
        let waiting = jobs.iter().find(|pending| pending.job.process == process);
        let waiting = waiting.map(|pending| (pending.cancel.clone(), pending.reason.clone()));
        if let Some((cancel, slot)) = waiting.or_else(|| self.life.running.borrow().get(&process).cloned()) {
            slot.set(reason).ok();
            cancel.cancel();
        }
    }

    /// Does the looks that wait, as their threads would.
    fn look(&self) {
        while *self.life.looks.borrow() > 0 {
            *self.life.looks.borrow_mut() -= 1;
            let look = agent::look(&self.life.parts).ok();
            self.handle(Event::Looked { agent: agent_id(), look });
        }
    }

    fn run_job(&self, index: usize) {
        let Pending { job, cancel, reason } = self.life.jobs.borrow_mut().remove(index);
        let process = job.process;
        self.life.running.borrow_mut().insert(process, (cancel.clone(), reason.clone()));
        let up = |what: What| self.handle(Event::Process(ProcessEvent { agent: agent_id(), process, what }));
        let pulse = Pulse::new(SystemClock::shared());
        let link = Link {
            show: &|_| {},
            pulse: &pulse,
            up: &up,
            cancel: &cancel,
            reason: &reason,
            rings: &crossbeam_channel::never(),
        };
        let how = contained(|| agent::run(&self.life.parts, &job, &link))
            .unwrap_or_else(|_| agent::close_after_panic(&self.life.parts, &job, &link));
        self.life.running.borrow_mut().remove(&process);
        up(What::Exited(how));
    }

    fn step(&mut self) {
        self.latest = self.latest.max(self.clock.now());
        match self.random.below(100) {
            0..=44 => {
                // What has to write its end would wait, by the clock of this machine, for a disk with space.
                let full = self.disk.full.load(Ordering::SeqCst);
                let jobs = self.life.jobs.borrow();
                let able =
                    jobs.iter().enumerate().filter(|(_, one)| !full || matches!(one.job.work, Work::Turn(_)));
                let able: Vec<usize> = able.map(|(index, _)| index).collect();
                drop(jobs);
                if !able.is_empty() {
                    let index = self.random.below(able.len() as u64);
                    self.run_job(able[usize::try_from(index).unwrap()]);
                }
            }
            45..=79 => {
                let milliseconds = self.random.below(150_000);
                self.clock.pass(i64::try_from(milliseconds).unwrap());
                self.handle(Event::Timer);
            }
            80..=84 => {
                let by = i64::try_from(self.random.below(3 * 3_600_000)).unwrap();
                let now = self.clock.now().0;
                // Mostly ahead: a clock that is behind the last write is not trusted.
                self.clock.set(if self.random.chance(60) { now + by } else { now - by / 8 });
                self.handle(Event::ClockChanged);
            }
            85..=91 => {
                self.reminders += 1;
                let (name, seconds) = (format!("once{}", self.reminders), 1 + self.random.below(900));
                if !self.create(&name, None, Some(seconds), true) {
                    self.reminders -= 1; // the disk was full, or has crashed
                }
                self.handle(Event::ClockChanged);
            }
            92..=94 => {
                let full = !self.disk.full.load(Ordering::SeqCst);
                self.disk.full.store(full, Ordering::SeqCst);
            }
            95 => self.restart(),
            _ => {
                let commits = i64::try_from(1 + self.random.below(6)).unwrap();
                self.disk.commits_to_crash.store(commits, Ordering::SeqCst);
            }
        }
        self.look();
        if self.disk.crashed.load(Ordering::SeqCst) {
            self.crashes += 1;
            self.restart();
        }
    }

    /// The power comes back, later.
    fn restart(&mut self) {
        self.disk = Disk::sound();
        self.clock.pass(i64::try_from(self.random.below(600_000)).unwrap());
        self.life = begin(&self.folder, &self.clock, &self.disk, &self.calm, &self.model_random);
        self.handle(Event::ClockChanged);
        self.look();
    }

    /// Everything works from now on, and time passes until every run and every reminder has ended.
    fn settle(&mut self) {
        self.calm.store(true, Ordering::SeqCst);
        self.disk.full.store(false, Ordering::SeqCst);
        self.disk.commits_to_crash.store(i64::MAX, Ordering::SeqCst);
        let mut minutes = 0;
        while minutes < 60 || self.clock.now() < self.latest.plus(Duration::from_secs(1_800)) {
            minutes += 1;
            self.clock.pass(61_000);
            self.handle(Event::Timer);
            self.look();
            while !self.life.jobs.borrow().is_empty() {
                self.run_job(0);
                self.look();
            }
        }
    }

    fn said(&self) -> Vec<String> {
        let outbox =
            self.life.parts.conversations.pending(&InstanceId::new(INSTANCE), None, OutboxId(0), 100_000);
        let text = |content| match content {
            Content::Text { text } => text,
            other => panic!("{other:?}"),
        };
        outbox.unwrap().into_iter().map(|answer| text(answer.content)).collect()
    }

    fn check(&self) -> usize {
        let runs: Vec<Execution> = self.life.parts.cron().runs(None, 100_000).unwrap();
        let said = self.said();
        let count =
            |text: &str| said.iter().filter(|said| said.split("\n\n").any(|part| part == text)).count();
        let mut slots = BTreeSet::new();
        for run in &runs {
            assert!(slots.insert((&run.job, run.slot)), "a slot has two runs: {run:?}");
            assert!(run.state != "running" && run.ended_at.is_some(), "a run has no end: {run:?}");
            let outcome = format!("{}@{}", run.job, run.slot.0);
            let told = usize::from(run.outcome.is_some());
            assert_eq!(count(&outcome), told, "told once if there was something to tell: {run:?}");
            assert!(
                run.outcome
                    .as_ref()
                    .is_none_or(|outcome| said.iter().any(|said| said.contains(outcome.as_str())))
            );
            assert!(run.state != "skipped" || !self.begun.borrow().contains(&run.id));
            // Two hours are the most that anything but a reminder may be late.
            let late = run.claimed_at.since(run.slot);
            assert!(run.job.starts_with("once") || late <= Duration::from_secs(7_200), "{run:?}");
        }
        let claims: Vec<_> = runs.iter().rev().map(|run| run.claimed_at).collect();
        assert!(claims.is_sorted(), "a clock that is behind is not trusted");
        for number in 1..=self.reminders {
            let (name, lost) = (format!("once{number}@"), format!("\"once{number}\""));
            let of_it: Vec<_> = runs.iter().filter(|run| run.job == format!("once{number}")).collect();
            assert_eq!(of_it.len(), 1, "once{number} has run once");
            let told = said.iter().filter(|said| said.contains(&name) || said.contains(&lost)).count();
            let silent = of_it[0].state == "succeeded" && of_it[0].outcome.is_none();
            assert_eq!(told, usize::from(!silent), "once{number}: {:?}", of_it[0]);
        }
        runs.len()
    }
}

/// In memory where that is possible: a simulated disk needs no real one.
fn folder() -> tempfile::TempDir {
    let base = Path::new("/dev/shm");
    if base.is_dir() { tempfile::tempdir_in(base).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn simulate(seed: u64) -> (usize, usize, BTreeSet<String>) {
    let folder = folder();
    let mut world = World::new(seed, folder.path());
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    let runs = world.check();
    let states =
        world.life.parts.cron().runs(None, 100_000).unwrap().into_iter().map(|run| run.state).collect();
    (runs, world.crashes, states)
}

#[test]
fn each_slot_has_one_run_one_end_and_at_most_one_word() {
    let one = std::env::var("SPACEBOT_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..SEEDS, |seed| seed..seed + 1);
    let (mut runs, mut crashes, mut states) = (0, 0, BTreeSet::new());
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed));
        let Ok((more_runs, more_crashes, more_states)) = outcome else { panic!("seed {seed} failed") };
        (runs, crashes) = (runs + more_runs, crashes + more_crashes);
        states.extend(more_states);
    }
    if one.is_none() {
        assert!(runs > 2_000 && crashes > 50, "{runs} runs and {crashes} crashes say too little");
        let all = ["failed", "interrupted", "skipped", "succeeded", "timed_out"];
        assert_eq!(states.iter().map(String::as_str).collect::<Vec<_>>(), all);
    }
}

#[test]
fn nothing_runs_before_the_clock_is_trusted() {
    let folder = folder();
    let mut world = World::new(1, folder.path());
    world.look();
    world.settle();
    let before = world.check();
    assert!(before > 10);
    let right = world.clock.now().0;
    // A board without a battery wakes up in 1970, and then in last year.
    for wrong in [5_000, right - 365 * 86_400_000] {
        world.clock.set(wrong);
        world.restart();
        for _ in 0..10 {
            world.clock.pass(60_000);
            world.handle(Event::Timer);
            world.look();
        }
        assert_eq!(world.check(), before, "nothing ran");
    }
    // The network tells the time.
    world.clock.set(right + 90_000);
    world.handle(Event::ClockChanged);
    world.look();
    assert!(world.life.parts.cron().runs(None, 1000).unwrap().len() > before, "what is due runs at once");
}
