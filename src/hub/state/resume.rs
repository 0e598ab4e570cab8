//! Branches and workers that a start found cut off: they go on under the number they had.

use std::time::Duration;

use super::{Hub, Process, Stage, TimerKey};
use crate::agent::{Job, Work};
use crate::conversation::Resumed;
use crate::hub::state::Action;
use crate::id::{AgentId, ProcessKind};
use crate::message::{Lane, Place};

impl Hub {
    /// Its clock starts anew, as does that of one that waits: nobody could reach it while the daemon was
    /// down.
    pub(super) fn resume(&mut self, agent_id: &AgentId, resumed: Resumed, now: Duration) {
        let Resumed { run, place } = resumed;
        let Some(agent) = self.agents.get(agent_id).filter(|_| self.stage == Stage::Running) else { return };
        let timeout = match run.process.kind {
            _ if run.waiting => agent.limits.worker_idle_timeout,
            ProcessKind::Worker => agent.limits.worker_timeout,
            _ => agent.limits.branch_wall_clock,
        };
        // Where its result is told. Without room in the table it is told by a later start.
        if Place::thread_of(&place.conversation).is_none() {
            self.know(&(agent_id.clone(), place.conversation.clone(), Lane::Talk), place.clone());
        }
        let process = Process {
            conversation: place.conversation.clone(),
            lane: Lane::Talk,
            task: None,
            what: run.task.clone(),
            status: String::new(),
            started: now,
            waiting: run.waiting,
            stopping: false,
            deadline: now + timeout,
        };
        let key = (agent_id.clone(), run.process);
        self.timers.set(&TimerKey::Process(key.clone()), Some(process.deadline));
        self.processes.insert(key.clone(), process);
        self.supervise(&key, now);
        let work = Work::GoOn {
            what: run.task,
            interactive: run.interactive,
            waits: run.waiting,
            answers: run.answers,
        };
        let job = Job { process: run.process, place, work };
        self.actions.push(Action::Start { agent: agent_id.clone(), job });
    }
}
