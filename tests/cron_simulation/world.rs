//! The world around jobs: time that passes and is set, people, faults.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use spacebot::agent::{self, Link, Pulse, Stage, Work};
use spacebot::clock::{Clock, SystemClock, Timestamp};
use spacebot::cron::schedule::ActiveHours;
use spacebot::cron::{Job, NewJob};
use spacebot::event::{ProcessEvent, StopReason, What};
use spacebot::hub::state::{Action, Event};
use spacebot::id::ProcessId;
use spacebot::thread::{Cancel, contained};

use crate::START;
use crate::disk::Disk;
use crate::life::{Clocks, Ground, Life, Pending, agent_id, begin, target};
use crate::random::Random;

pub struct World {
    pub random: Random,
    pub clock: Arc<Clocks>,
    pub ground: Ground,
    pub disk: Arc<Disk>,
    pub life: Life,
    pub crashes: usize,
    /// As far ahead as the clock ever was: reminders may have been made then.
    pub latest: Timestamp,
    /// Executions whose first turn has begun.
    pub begun: RefCell<BTreeSet<i64>>,
    /// Reminders that are on disk, and those of which a crash kept the news.
    pub reminders: Vec<String>,
    pub doubtful: Vec<String>,
    /// Jobs that the operator has switched on again, behind which run.
    pub switched_on: Vec<(String, i64)>,
    numbers: u64,
}

impl World {
    pub fn new(seed: u64, folder: &Path) -> Self {
        let clock = Arc::new(Clocks { wall: AtomicI64::new(START), monotonic: AtomicI64::new(1_000) });
        let disk = Disk::new();
        let ground = Ground {
            folder: folder.to_owned(),
            clock: clock.clone(),
            calm: Arc::new(AtomicBool::new(false)),
            away: Arc::new(AtomicBool::new(false)),
            random: Arc::new(Mutex::new(Random(seed ^ 0x5555))),
        };
        let life = begin(&ground, &disk);
        let world = Self {
            random: Random(seed),
            clock,
            ground,
            disk,
            life,
            crashes: 0,
            latest: Timestamp(START),
            begun: RefCell::default(),
            reminders: Vec::new(),
            doubtful: Vec::new(),
            switched_on: Vec::new(),
            numbers: 0,
        };
        world.create("minutes", None, Some(120), false);
        world.create("expression", Some("*/7 * * * *"), None, false);
        world.create("rare", Some("30 2 * * *"), None, false);
        world.handle(Event::ClockChanged);
        world
    }

    pub fn create(&self, name: &str, expression: Option<&str>, seconds: Option<u64>, once: bool) -> bool {
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

    pub fn handle(&self, event: Event) {
        let actions = self.life.hub.borrow_mut().handle(event, self.clock.monotonic());
        for action in actions {
            match action {
                Action::Start { job, .. } => self.start(job),
                Action::Cancel { process, reason, .. } => self.cancel(process, reason),
                Action::Look { .. } => *self.life.looks.borrow_mut() += 1,
                Action::Answer { to, answer } => to.try_send(answer).expect("room"),
                Action::Ring { .. } | Action::Rescan { .. } | Action::Feel { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn start(&self, job: agent::Job) {
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
    pub fn look(&self) {
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
            stage: &Stage::hidden(),
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

    pub fn step(&mut self) {
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
                self.numbers += 1;
                let (name, seconds) = (format!("once{}", self.numbers), 1 + self.random.below(900));
                if self.create(&name, None, Some(seconds), true) {
                    self.reminders.push(name);
                } else {
                    self.doubtful.push(name);
                }
                self.handle(Event::ClockChanged);
            }
            92 => {
                let away = !self.ground.away.load(Ordering::SeqCst);
                self.ground.away.store(away, Ordering::SeqCst);
            }
            93 => self.switch_on(),
            94 => {
                let full = !self.disk.full.load(Ordering::SeqCst);
                self.disk.full.store(full, Ordering::SeqCst);
            }
            95 => self.restart(),
            _ => {
                let commits = i64::try_from(1 + self.random.below(6)).unwrap();
                self.disk.after.store(self.random.chance(50), Ordering::SeqCst);
                self.disk.commits_to_crash.store(commits, Ordering::SeqCst);
            }
        }
        self.look();
        if self.disk.crashed.load(Ordering::SeqCst) {
            self.crashes += 1;
            self.restart();
        }
    }

    /// The operator switches on what has switched itself off.
    fn switch_on(&mut self) {
        let cron = self.life.parts.cron();
        let off = |job: &Job| !job.enabled && !job.done;
        let jobs = cron.jobs().unwrap();
        let last = cron.runs(None, 1).unwrap().first().map_or(0, |run| run.id);
        for job in jobs.into_iter().filter(off) {
            cron.toggle(&job.name, true, self.clock.now()).ok(); // what came of it, the disk knows
            let now = cron.jobs().unwrap();
            if now.iter().any(|one| one.name == job.name && one.enabled) {
                self.switched_on.push((job.name, last));
            }
        }
        self.handle(Event::ClockChanged);
    }

    /// The power comes back, later.
    pub fn restart(&mut self) {
        self.disk = Disk::new();
        self.clock.pass(i64::try_from(self.random.below(600_000)).unwrap());
        self.life = begin(&self.ground, &self.disk);
        self.handle(Event::ClockChanged);
        self.look();
    }

    /// Everything works from now on, and time passes until every run and every reminder has ended.
    pub fn settle(&mut self) {
        self.ground.calm.store(true, Ordering::SeqCst);
        self.ground.away.store(false, Ordering::SeqCst);
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
}
