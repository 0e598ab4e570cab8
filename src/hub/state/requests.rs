//! What the API and the commands ask for, and how the hub describes what runs.

use super::*;

impl Hub {
    pub(super) fn on_command(&mut self, command: Command, now: Duration) {
        match command {
            Command::Status { answer } => {
                let report = self.report(now);
                self.actions.push(Action::Report { to: answer, report });
            }
            Command::CancelProcess { agent, process, reason, answer } => {
                let key = (agent, process);
                let known = self.processes.contains_key(&key);
                self.cancel(&key, StopReason::Asked(reason), now);
                self.actions.push(Action::Told { to: answer, done: known });
            }
            Command::CortexChat { agent, thread, channel, message, answer } => {
                let begun = self.cortex_chat(&agent, thread, channel, message, now);
                self.actions.push(Action::Answer { to: answer, answer: begun });
            }
            Command::Tasks { agent, news } => {
                news.into_iter().for_each(|news| self.on_news(&agent, news, now));
                self.cortex_changed(&agent, now);
            }
        }
    }

    /// What runs keeps its deadline; what starts or begins to wait has the new one.
    pub(super) fn reloaded(&mut self, limits: BTreeMap<AgentId, LimitsConfig>, now: Duration) {
        for (id, limits) in limits {
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.limits = limits;
                self.start_ready(&id, now);
                self.start_tasks(&id, now);
                self.cortex_reloaded(&id, now);
            }
        }
        // What waits for a model may have another one now.
        let keys: Vec<Key> = self.conversations.keys().cloned().collect();
        for key in keys {
            if let Some(conversation) = self.conversations.get_mut(&key)
                && conversation.not_before.take().is_some()
            {
                self.consider(&key, now);
            }
        }
        // The zone and the policy of jobs may be others.
        self.look_everywhere();
    }

    pub(super) fn report(&self, now: Duration) -> StatusReport {
        let process = |(key, process): (&ProcessKey, &Process)| ProcessReport {
            agent: key.0.to_string(),
            process: key.1.to_string(),
            conversation: process.conversation.to_string(),
            what: process.what.clone(),
            status: process.status.clone(),
            seconds: now.saturating_sub(process.started).as_secs(),
        };
        StatusReport {
            conversations: self.conversations.len(),
            waiting_turns: self.agents.values().map(|agent| agent.ready.len()).sum(),
            processes: self.processes.iter().map(process).collect(),
            stopping: self.stage != Stage::Running,
            cortex: self.cortex_reports(now),
            // An idle conversation is not in the table; a busy one may be there with both lanes.
            busy: self
                .conversations
                .keys()
                .map(|key| key.1.to_string())
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        }
    }

    /// What a turn's status block shows.
    pub(super) fn running_in(&self, key: &Key, now: Duration) -> Vec<Running> {
        self.processes
            .iter()
            .filter(|(id, process)| id.0 == key.0 && process.conversation == key.1)
            .filter(|(id, _)| id.1.kind.is_told_of())
            .map(|(id, process)| process.running(id.1, now))
            .collect()
    }

    /// What runs in the whole agent, but for the turns that answer commands.
    pub(super) fn running_of(&self, agent: &AgentId, now: Duration) -> Vec<(ConversationId, Running)> {
        self.processes
            .iter()
            .filter(|(id, process)| id.0 == *agent && process.lane == Lane::Talk)
            .map(|(id, process)| (process.conversation.clone(), process.running(id.1, now)))
            .collect()
    }
}

impl Process {
    pub(super) fn running(&self, process: ProcessId, now: Duration) -> Running {
        Running {
            process,
            what: self.what.clone(),
            status: self.status.clone(),
            seconds: now.saturating_sub(self.started).as_secs(),
            waiting: self.waiting,
        }
    }
}
