//! One life of the daemon, from its start to its crash: the hub, its jobs and what they share.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use spacebot::agent::{self, AgentParts, Chat, Job, Link, PostNews, Pulse, Stage, Work};
use spacebot::clock::{Clock, SimulatedClock, SystemClock};
use spacebot::command::{Command, StatusReport};
use spacebot::conversation::Place;
use spacebot::cortex::ChatRole;
use spacebot::db::DbError;
use spacebot::event::{How, ProcessEvent, StopReason, What};
use spacebot::hub;
use spacebot::hub::state::{Action, Event, Hub};
use spacebot::id::{AgentId, ConversationId, OutboxId, ProcessId, ProcessKind};
use spacebot::message::{Inbound, Lane};
use spacebot::thread::{Cancel, contained};

use crate::start::{agent_of, main_agent};
use crate::watch::{RUNNING, Running, Watch};

/// Turns of its conversation that may run while a worker waits for words.
const TURNS_MEANWHILE: usize = 3;

pub struct Pending {
    pub agent: AgentId,
    pub job: Job,
    pub cancel: Cancel,
    pub reason: Arc<OnceLock<StopReason>>,
    pub rings: Receiver<()>,
}

/// A stop request, its reason, and the bell of a turn.
pub type Stoppable = (Cancel, Arc<OnceLock<StopReason>>, Sender<()>);

pub struct Life {
    /// Of the first agent.
    pub parts: Arc<AgentParts>,
    pub agents: hub::Agents,
    pub hub: RefCell<Hub>,
    pub jobs: RefCell<Vec<Pending>>,
    /// Agents that have something for others.
    pub carries: RefCell<Vec<AgentId>>,
    /// Stop requests for the jobs that wait or run.
    pub running: RefCell<BTreeMap<(AgentId, ProcessId), Stoppable>>,
    pub rescan: RefCell<bool>,
    /// Sent, but the disk would not take the note yet; an adapter keeps this in memory.
    pub unrecorded: RefCell<Vec<(AgentId, OutboxId, ConversationId)>>,
    /// The last turn failed: the next one waits for longer.
    pub failing: RefCell<BTreeSet<ConversationId>>,
    pub watch: Arc<Watch>,
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
            Action::Start { agent, job } => {
                self.watch.starts(&agent, &job, now);
                let (rings, rung) = bounded(1);
                let (cancel, reason) = (Cancel::new(), Arc::new(OnceLock::new()));
                let stoppable = (cancel.clone(), reason.clone(), rings);
                self.running.borrow_mut().insert((agent.clone(), job.process), stoppable);
                self.jobs.borrow_mut().push(Pending { agent, job, cancel, reason, rings: rung });
            }
            Action::Cancel { agent, process, reason } => {
                if let Some((cancel, slot, _)) = self.running.borrow().get(&(agent, process)) {
                    slot.set(reason).ok();
                    cancel.cancel();
                }
            }
            Action::RingProcess { agent, process } => {
                let running = self.running.borrow();
                let (_, _, rings) = running.get(&(agent, process)).expect("only a turn that runs is rung");
                rings.try_send(()).ok();
            }
            Action::Answer { to, answer } => to.try_send(answer).expect("room"),
            Action::Report { to, report } => to.try_send(report).expect("room"),
            Action::Told { to, done } => to.try_send(done).expect("room"),
            Action::Look { agent } => {
                let look = Some(agent::look(&self.agents[&agent]).expect("a look"));
                self.handle(Event::Looked { agent, look }, now);
            }
            Action::Rescan { .. } => *self.rescan.borrow_mut() = true,
            Action::Carry { agent } => self.carries.borrow_mut().push(agent),
            Action::Ring { .. } | Action::Feel { .. } | Action::StopIntake | Action::Exit => {}
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
        // Where the first agent is alone, all conversations are its own.
        let agent = Some(agent_of(&message.conversation)).filter(|agent| self.agents.contains_key(agent));
        let agent = agent.unwrap_or_else(main_agent);
        match self.agents[&agent].conversations.receive(message) {
            Ok(None) => true,
            Ok(Some(inbox)) => {
                self.handle(Event::Arrived { agent, place, lane, inbox, addressed }, now);
                true
            }
            Err(DbError::Full | DbError::Corrupt(_)) => false,
            Err(error) => panic!("inbox: {error}"),
        }
    }

    /// Runs one waiting job to its end, as its thread would.
    pub fn run_job(&self, index: usize, clock: &SimulatedClock) {
        let Pending { agent, job, cancel, reason, rings } = self.jobs.borrow_mut().remove(index);
        let (process, parts) = (job.process, &self.agents[&agent]);
        let up = |what: What| {
            let waits = matches!(what, What::Waiting);
            let event = ProcessEvent { agent: agent.clone(), process, what };
            self.handle(Event::Process(event), clock.monotonic());
            if waits {
                self.while_waiting(&agent, &job, &rings, clock);
            }
        };
        if matches!(job.work, Work::GoOn { waits: true, .. }) {
            self.while_waiting(&agent, &job, &rings, clock);
        }
        let beneath = RUNNING.replace(Some(of_job(&agent, parts, &job, &cancel)));
        let pulse = Pulse::new(SystemClock::shared());
        let link = Link {
            show: &|_| {},
            stage: &Stage::hidden(),
            pulse: &pulse,
            up: &up,
            cancel: &cancel,
            reason: &reason,
            rings: &rings,
        };
        let how = contained(|| agent::run(parts, &job, &link))
            .unwrap_or_else(|_| agent::close_after_panic(parts, &job, &link));
        if let Some(running) = RUNNING.replace(beneath) {
            self.watch.ended(&running, &how, clock.monotonic());
        }
        self.running.borrow_mut().remove(&(agent.clone(), process));
        if let Work::CortexChat(Chat { thread, .. }) = &job.work
            // What fails is cut off by a crash.
            && !matches!(how, How::Failed(..))
            && parts.cortex().chat(thread, 1).expect("read").iter().any(|last| last.role == ChatRole::User)
        {
            self.watch.breaks(format!("the operator of {agent} has no answer in {thread}: {how:?}"));
        }
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
    fn while_waiting(&self, agent: &AgentId, job: &Job, rings: &Receiver<()>, clock: &SimulatedClock) {
        for _ in 0..TURNS_MEANWHILE {
            clock.advance(spacebot::config::LimitsConfig::default().retrigger_debounce);
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
            let (agent, process) = (agent.clone(), job.process);
            let command = Command::CancelProcess { agent, process, reason, answer };
            self.handle(Event::Command(command), clock.monotonic());
        }
    }

    /// Carries what one agent has for others, as its thread would.
    pub fn carry(&self, index: usize, clock: &SimulatedClock) {
        let agent = self.carries.borrow_mut().remove(index);
        let mut tell = |news| {
            let event = match news {
                PostNews::Task(agent, news) => Event::Task { agent, news },
                PostNews::Result(agent, place) => {
                    Event::Unfinished { agent, place, lane: Lane::Talk, newest: None, results: true }
                }
            };
            self.handle(event, clock.monotonic());
        };
        let more = agent::carry(&self.agents, &agent, &mut tell).ok();
        self.handle(Event::Carried { agent, more }, clock.monotonic());
    }

    pub fn status(&self, now: Duration) -> StatusReport {
        let (answer, answered) = bounded(1);
        self.handle(Event::Command(Command::Status { answer }), now);
        answered.try_recv().expect("a report")
    }
}

fn of_job(agent: &AgentId, parts: &AgentParts, job: &Job, cancel: &Cancel) -> Running {
    let errand = match job.work {
        Work::Cortex { errand, .. } => Some(errand),
        _ => None,
    };
    // A text that was there before is another one when it comes back.
    let about = errand.and_then(|_| parts.cortex().bulletin().expect("read"));
    let about = about.map_or_else(String::new, |bulletin| bulletin.changed_at.0.to_string());
    let (agent, process, cancel) = (agent.clone(), job.process, cancel.clone());
    let found = (process.kind == ProcessKind::Compactor).then(|| {
        let (conversations, conversation) = (parts.conversations.clone(), job.place.conversation.clone());
        let window = conversations.window(&conversation).expect("read");
        (conversations, conversation, window)
    });
    Running { agent, process, cancel, errand, about, asked: None, found }
}
