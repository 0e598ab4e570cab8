//! The world around the daemon: people who write, a platform, faults, and time that passes.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::bounded;
use spacebot::agent::Job;
use spacebot::clock::{Clock, SimulatedClock, Timestamp};
use spacebot::command::Command;
use spacebot::config::OFFLINE_MODEL;
use spacebot::effect::Answer;
use spacebot::hub::state::Event;
use spacebot::id::{AgentId, ConversationId, InstanceId, OutboxId, ProcessId, ProcessKind};
use spacebot::message::{Content, Delivery, Inbound, Outbox};
use spacebot::tasks::{self, NewTask};

use crate::accounts::Accounts;
use crate::ceilings::CHEAPER;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::life::Life;
use crate::model::{MEANWHILE, Models};
use crate::random::Random;
use crate::start::{Ground, limits, place_of};
use crate::variant::Variant;
use crate::watch::Watch;
use crate::{CONVERSATIONS, INSTANCE, STEPS, TASKS};

/// Longest time that passes at once where models are away, in milliseconds: so long that some messages have
/// waited for too long.
const JUMP: u64 = 4_500_000;
/// The same for the next try of what has failed.
const NAP: u64 = 120_000;
/// Where there are ceilings, a day and a month end soon: 2026-10-01T00:00:00Z, and how long before it at most, in
/// milliseconds.
const MONTH_END: Timestamp = Timestamp(1_790_812_800_000);
const LAST_HOURS: u64 = 7_200_000;

/// Jobs that run in a time in which nobody writes.
const QUIET_JOBS: usize = 24;

/// How the platform behaves; the broken one exists to show that the checks notice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    CommitThenTell,
    TellThenCommit,
}

#[derive(Default)]
pub struct Platform {
    pub sent: Vec<Inbound>,
    /// Platform ids that the platform believes to be taken.
    pub told: BTreeSet<String>,
    /// Outbox rows that arrived, with how often.
    pub arrived: BTreeMap<(AgentId, OutboxId), u32>,
    pub texts: Vec<String>,
}
pub struct World {
    pub random: Random,
    pub clock: Arc<SimulatedClock>,
    pub ground: Ground,
    pub disk: Arc<Disk>,
    pub life: Rc<Life>,
    pub platform: Platform,
    pub order: Order,
    pub crashes: usize,
    /// Questions of the operator to the cortex that were begun.
    pub asked: usize,
}
impl World {
    pub fn new(seed: u64, folder: PathBuf, order: Order, variant: Variant) -> Self {
        let start = match variant.budget {
            true => MONTH_END.minus(Duration::from_millis(Random(seed).below(LAST_HOURS))),
            false => Timestamp(1_790_000_000_000),
        };
        let clock = SimulatedClock::starting_at(start);
        let disk = Disk::new();
        let ground = Ground {
            folder,
            clock: clock.clone(),
            calm: Arc::new(AtomicBool::new(false)),
            model_random: Arc::new(Mutex::new(Random(seed ^ 0x5555))),
            models: Arc::new(Models::default()),
            accounts: Accounts::new(seed, clock.clone()),
            variant,
            watch: Arc::new(Watch::default()),
        };
        ground.furnish();
        let life = ground.begin(&disk);
        for number in 0..TASKS {
            let new = NewTask::new(format!("chore {number}"), tasks::Actor::Operator);
            life.parts.tasks().create(NewTask { place: Some(place_of(1)), ..new }).expect("a task");
        }
        let platform = Platform::default();
        Self { random: Random(seed), clock, ground, disk, life, platform, order, crashes: 0, asked: 0 }
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..=16 => self.send_new(None),
            17..=20 => self.send_command(),
            21..=28 => self.send_again(),
            29..=60 => self.run_one(),
            61..=73 => self.deliver(),
            74 => self.quiet_spell(),
            75..=85 => self.pass_time(),
            86..=91 => self.something_else(),
            92..=94 => self.cancel_something(),
            95..=96 => {
                let full = !self.disk.full.load(Ordering::SeqCst);
                self.disk.full.store(full, Ordering::SeqCst);
            }
            _ => self.crash_soon(6),
        }
        if self.disk.crashed.load(Ordering::SeqCst) {
            self.restart();
        }
    }

    /// The crash comes with one of the next commits.
    fn crash_soon(&mut self, most: u64) {
        self.disk.after.store(self.random.chance(50), Ordering::SeqCst);
        let commits = i64::try_from(1 + self.random.below(most)).expect("small");
        self.disk.commits_to_crash.store(commits, Ordering::SeqCst);
    }

    pub fn restart(&mut self) {
        self.crashes += 1;
        self.disk = Disk::new();
        self.life = self.ground.begin(&self.disk);
    }

    fn pass_time(&mut self) {
        let waits = self.ground.variant.loses_models() && self.life.jobs.borrow().is_empty();
        let most = match self.random.below(100) {
            0..=24 if waits => JUMP,
            // To what the daemon waits for.
            25..=69 if waits => NAP,
            _ => 3_000,
        };
        self.clock.advance(Duration::from_millis(self.random.below(most)));
        self.life.handle(Event::Timer, self.now());
    }

    /// Nobody writes for a while, and what runs leads to the next.
    fn quiet_spell(&mut self) {
        // Branches and workers would wait for space in real time.
        let full = self.disk.full.swap(false, Ordering::SeqCst);
        for _ in 0..QUIET_JOBS {
            if self.life.jobs.borrow().is_empty() {
                self.clock.advance(limits().retrigger_debounce);
                self.life.handle(Event::Timer, self.now());
            }
            if self.life.jobs.borrow().is_empty() || self.disk.crashed.load(Ordering::SeqCst) {
                break;
            }
            self.life.run_job(0, &self.clock);
        }
        self.disk.full.store(full, Ordering::SeqCst);
    }

    /// What there is beside people and time.
    fn something_else(&mut self) {
        let variant = self.ground.variant;
        match (variant.loses_models(), variant.cortex) {
            _ if variant.budget && self.random.chance(10) => self.ground.accounts.raise(),
            (true, true) if self.random.chance(35) => self.ask_cortex(),
            (true, _) => {
                let names = self.model_names();
                let name = names[usize::try_from(self.random.below(names.len() as u64)).expect("index")];
                let models = &self.ground.models;
                match models.fault(name) {
                    Some(_) if self.random.chance(75) => {}
                    Some(_) => models.set(name, None),
                    None => models.set(name, Some(Fault::lasting(&mut self.random))),
                }
            }
            (false, _) => self.send_new(None),
        }
    }

    fn model_names(&self) -> &'static [&'static str] {
        match self.ground.variant {
            Variant { budget: true, .. } => &["sim/a", "sim/b", CHEAPER],
            Variant { chained: true, .. } => &["sim/a", "sim/b"],
            _ => &[OFFLINE_MODEL],
        }
    }

    fn agents(&self) -> Vec<AgentId> {
        self.ground.agents()
    }

    /// The operator writes to the cortex of some agent.
    fn ask_cortex(&mut self) {
        let agents = self.agents();
        let agent = agents[usize::try_from(self.random.below(agents.len() as u64)).expect("index")].clone();
        let (answer, answered) = bounded(1);
        let (thread, message) = (format!("t{}", self.random.below(2)), format!("question {}", self.asked));
        let command = Command::CortexChat { agent, thread, channel: None, message, answer };
        self.life.handle(Event::Command(command), self.now());
        if let Ok(Answer::Started(_)) = answered.try_recv() {
            self.asked += 1;
        }
    }

    /// With that of the other agent.
    pub fn conversations(&self) -> u64 {
        CONVERSATIONS + u64::from(self.ground.variant.linked)
    }

    /// `/status`, or the approval of some task, which may be any number of times approved before.
    pub fn send_command(&mut self) {
        let counts = self.life.parts.tasks().counts().expect("read");
        let tasks: usize = counts.iter().map(|(_, count)| count).sum();
        let which = self.random.below(tasks as u64 + 1);
        self.send_new(Some(if which == 0 { "/status".to_owned() } else { format!("/approve {which}") }));
    }

    pub fn send_new(&mut self, command: Option<String>) {
        let conversation = match command {
            None => self.random.below(self.conversations()),
            Some(_) => 1,
        };
        let message = self.compose(conversation, command);
        // Some are lost on the way and come later.
        if !self.random.chance(15) {
            self.take_in(message);
        }
    }

    pub fn compose(&mut self, conversation: u64, command: Option<String>) -> Inbound {
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

    pub fn send_again(&mut self) {
        if self.platform.sent.is_empty() {
            return;
        }
        let which = self.random.below(self.platform.sent.len() as u64);
        let message = self.platform.sent[usize::try_from(which).expect("index")].clone();
        self.take_in(message);
    }

    pub fn take_in(&mut self, message: Inbound) {
        let id = message.platform_id.clone();
        if self.order == Order::TellThenCommit {
            self.platform.told.insert(id.clone());
        }
        if self.life.take_in(message, self.now()) {
            self.platform.told.insert(id);
        }
    }

    /// What happens while the models of this job think: messages for its conversation, a stop, and now and then
    /// a whole other job. The ids of the messages that were taken.
    pub fn more_comes(&mut self, agent: &AgentId, job: &Job) -> Rc<RefCell<Vec<String>>> {
        let taken = Rc::new(RefCell::new(Vec::new()));
        let number =
            (0..self.conversations()).find(|number| place_of(*number).conversation == job.place.conversation);
        let mut coming = VecDeque::new();
        if let Some(conversation) = number.filter(|_| self.random.chance(50)) {
            let count = 1 + self.random.below(2);
            coming.extend((0..count).map(|_| self.compose(conversation, None)));
        }
        let (life, clock, done) = (self.life.clone(), self.clock.clone(), taken.clone());
        let mut random = Random(self.random.next());
        let full = self.disk.full.load(Ordering::SeqCst);
        let (agent, process) = (agent.clone(), job.process);
        MEANWHILE.set(Some(Box::new(move || {
            if random.chance(4) {
                cancel(&life, agent.clone(), process, clock.monotonic());
            }
            if random.chance(15) {
                run_another(&life, &mut random, full, &clock);
            }
            let Some(message) = coming.pop_front_if(|_| random.chance(70)) else { return };
            let id = message.platform_id.clone();
            if life.take_in(message, clock.monotonic()) {
                done.borrow_mut().push(id);
            }
        })));
        taken
    }

    pub fn run_one(&mut self) {
        let (jobs, carries) = (self.life.jobs.borrow().len(), self.life.carries.borrow().len());
        if jobs + carries == 0 {
            return;
        }
        let carried = carries > 0 && self.random.chance(30);
        let first = if carried { jobs } else { 0 };
        let index =
            first + usize::try_from(self.random.below((jobs + carries - first) as u64)).expect("index");
        if index >= jobs {
            // Between two databases a crash has most to tear apart.
            if self.random.chance(40) {
                self.crash_soon(4);
            }
            return self.life.carry(index - jobs, &self.clock);
        }
        let (agent, job) = {
            let jobs = self.life.jobs.borrow();
            (jobs[index].agent.clone(), jobs[index].job.clone())
        };
        let is_channel = job.process.kind == ProcessKind::Channel;
        let full = self.disk.full.load(Ordering::SeqCst);
        // Branches and workers wait for space in real time; here they get it.
        self.disk.full.store(full && is_channel, Ordering::SeqCst);
        let taken = self.more_comes(&agent, &job);
        self.life.run_job(index, &self.clock);
        MEANWHILE.set(None);
        self.platform.told.extend(taken.take());
        self.disk.full.store(full, Ordering::SeqCst);
    }

    /// What an adapter without idempotency keys does.
    pub fn deliver(&mut self) {
        self.agents().iter().for_each(|agent| self.deliver_of(agent));
    }

    fn deliver_of(&mut self, agent: &AgentId) {
        let conversations = &self.life.agents[agent].conversations;
        let mut unrecorded = self.life.unrecorded.borrow_mut();
        unrecorded.retain(|(of, id, conversation)| {
            let sent = Delivery::Sent { platform_id: None };
            of != agent || conversations.record(&[*id], conversation, sent).is_err()
        });
        let instance = InstanceId::new(INSTANCE);
        let pending = conversations.pending(&instance, None, OutboxId(0), 4).expect("read");
        for outbound in pending {
            if conversations.record(&[outbound.id], &outbound.conversation, Delivery::Sending).is_err() {
                return;
            }
            *self.platform.arrived.entry((agent.clone(), outbound.id)).or_default() += 1;
            if let Content::Text { text } = &outbound.content {
                self.platform.texts.push(text.clone());
            }
            if conversations
                .record(&[outbound.id], &outbound.conversation, Delivery::Sent { platform_id: None })
                .is_err()
            {
                unrecorded.push((agent.clone(), outbound.id, outbound.conversation));
                return;
            }
        }
    }

    pub fn cancel_something(&mut self) {
        let jobs = self.life.jobs.borrow();
        let processes: Vec<_> =
            jobs.iter().map(|pending| (pending.agent.clone(), pending.job.process)).collect();
        drop(jobs);
        if processes.is_empty() {
            return;
        }
        let index = usize::try_from(self.random.below(processes.len() as u64)).expect("index");
        let (agent, process) = processes[index].clone();
        cancel(&self.life, agent, process, self.now());
    }

    /// Lets everything come to rest without further faults.
    pub fn settle(&mut self) -> Result<(), String> {
        self.settle_within(Duration::MAX)
    }

    /// The same, where what is to come later than that does not count.
    pub fn settle_within(&mut self, limit: Duration) -> Result<(), String> {
        self.ground.calm.store(true, Ordering::SeqCst);
        self.model_names().iter().for_each(|name| self.ground.models.set(name, None));
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
            while !self.life.jobs.borrow().is_empty() || !self.life.carries.borrow().is_empty() {
                self.ground.watch.check()?;
                while !self.life.carries.borrow().is_empty() {
                    self.life.carry(0, &self.clock);
                }
                if !self.life.jobs.borrow().is_empty() {
                    self.life.run_job(0, &self.clock);
                }
            }
            (0..STEPS).for_each(|_| self.deliver());
            let next = self.life.hub.borrow().next_deadline();
            let Some(next) = next.filter(|next| next.saturating_sub(self.now()) < limit) else {
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
}

fn cancel(life: &Life, agent: AgentId, process: ProcessId, now: Duration) {
    let (answer, _answered) = bounded(1);
    let reason = "simulated".to_owned();
    let command = Command::CancelProcess { agent, process, reason, answer };
    life.handle(Event::Command(command), now);
}

/// Runs a job to its end while another one waits for its model.
fn run_another(life: &Life, random: &mut Random, full: bool, clock: &SimulatedClock) {
    let jobs = life.jobs.borrow();
    // Others than turns would wait for a disk with space by the clock of this machine.
    let able: Vec<usize> = (0..jobs.len())
        .filter(|index| !full || jobs[*index].job.process.kind == ProcessKind::Channel)
        .collect();
    drop(jobs);
    if !able.is_empty() {
        let index = able[usize::try_from(random.below(able.len() as u64)).expect("index")];
        life.run_job(index, clock);
        life.watch.count("jobs within jobs");
    }
}
