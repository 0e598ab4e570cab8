//! Requests and results between agents: when somebody carries them from one database to the other.

use super::*;

/// First wait after one could not be carried; doubles with every further failure.
const POST_RETRY_BASE: Duration = Duration::from_secs(2);
const POST_RETRY_MAX: Duration = Duration::from_secs(300);

/// Whether somebody carries what this agent has for others.
#[derive(Debug, Default)]
pub(super) struct Post {
    carrying: bool,
    /// There is more since.
    again: bool,
    failures: u32,
}

impl Hub {
    /// One at a time: what comes in the meantime is carried afterwards. What a stop cuts off stands in the
    /// databases, and the next start carries it.
    pub(super) fn carry(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id).filter(|_| self.stage == Stage::Running) else { return };
        if agent.post.carrying {
            agent.post.again = true;
            return;
        }
        agent.post.carrying = true;
        self.timers.set(&TimerKey::Post(id.clone()), None);
        self.actions.push(Action::Carry { agent: id.clone() });
    }

    /// `more`: there is more to carry; none when something could not be.
    pub(super) fn carried(&mut self, id: &AgentId, more: Option<bool>, now: Duration) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        agent.post.carrying = false;
        let again = std::mem::take(&mut agent.post.again);
        match more {
            Some(more) => {
                agent.post.failures = 0;
                if more || again {
                    self.carry(id);
                }
            }
            None => {
                let wait = POST_RETRY_BASE.saturating_mul(1 << agent.post.failures.min(16));
                agent.post.failures += 1;
                self.timers.set(&TimerKey::Post(id.clone()), Some(now + wait.min(POST_RETRY_MAX)));
            }
        }
    }
}
