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
use spacebot::hub::state::Event;
use spacebot::id::{ConversationId, InstanceId, OutboxId, ProcessKind};
use spacebot::message::{Content, Delivery, Inbound, Outbox};
use spacebot::tasks::{self, NewTask};

use crate::disk::Disk;
use crate::life::{Life, agent_id, begin, place_of};
use crate::model::MEANWHILE;
use crate::random::Random;
use crate::{CONVERSATIONS, INSTANCE, STEPS, TASKS};

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
    pub arrived: BTreeMap<OutboxId, u32>,
    pub texts: Vec<String>,
}
pub struct World {
    pub random: Random,
    pub clock: Arc<SimulatedClock>,
    pub folder: PathBuf,
    pub disk: Arc<Disk>,
    pub life: Rc<Life>,
    pub platform: Platform,
    pub order: Order,
    pub calm: Arc<AtomicBool>,
    pub model_random: Arc<Mutex<Random>>,
    pub crashes: usize,
}
impl World {
    pub fn new(seed: u64, folder: PathBuf, order: Order) -> Self {
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

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub fn step(&mut self) {
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

    pub fn restart(&mut self) {
        self.crashes += 1;
        self.disk = Disk::new();
        self.life = begin(&self.folder, &self.clock, &self.disk, &self.calm, &self.model_random);
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
            None => self.random.below(CONVERSATIONS),
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

    /// Messages for the conversation of this job, which come while it runs; the ids of those that were taken.
    pub fn more_comes(&mut self, job: &Job) -> Rc<RefCell<Vec<String>>> {
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

    pub fn run_one(&mut self) {
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
    pub fn deliver(&mut self) {
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

    pub fn cancel_something(&mut self) {
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
    pub fn settle(&mut self) -> Result<(), String> {
        self.settle_within(Duration::MAX)
    }

    /// The same, where what is to come later than that does not count.
    pub fn settle_within(&mut self, limit: Duration) -> Result<(), String> {
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
