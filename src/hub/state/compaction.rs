//! The compactors, as the hub sees them: in one conversation at most one summary is made and at most one
//! process takes memories; both stand beside the turns, and no turn waits for them. They begin after a
//! turn that says that there is something to do, and end by themselves.

use std::time::Duration;

use super::{Begin, Hub, MAX_CONVERSATIONS, ProcessKey, Stage, TimerKey};
use crate::agent::Work;
use crate::conversation::Place;
use crate::error::Kind;
use crate::event::How;
use crate::id::{AgentId, ConversationId, ProcessId, ProcessKind};

/// A summary that takes longer is stopped and counts as failed: a slow model on a small board.
pub const COMPACTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Compactors of one agent that run at once; the others wait.
pub const MAX_COMPACTORS: usize = 2;
/// Tries of one summary, and the wait before the second; it doubles.
pub const COMPACTION_TRIES: u32 = 3;
const RETRY_BASE: Duration = Duration::from_secs(30);
/// After so many failures nothing is tried for this time. A window that gets full meanwhile is an
/// emergency, which needs no model.
pub const COMPACTION_REST: Duration = Duration::from_secs(600);

/// What there is to do about the window of one conversation.
#[derive(Debug)]
pub(super) struct Compacting {
    place: Place,
    window: Chore,
    memories: Chore,
}

#[derive(Debug, Default)]
struct Chore {
    wanted: bool,
    running: Option<ProcessId>,
    failures: u32,
    not_before: Option<Duration>,
}

impl Chore {
    /// Asks for it, unless it rests.
    fn want(&mut self, now: Duration) {
        self.wanted |= self.not_before.is_none_or(|at| at <= now);
    }

    fn is_due(&self, now: Duration) -> bool {
        self.wanted && self.running.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    fn is_over(&self, now: Duration) -> bool {
        !self.wanted && self.running.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    fn succeed(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    fn fail(&mut self, retry: bool, now: Duration) {
        self.failures += 1;
        if retry && self.failures < COMPACTION_TRIES {
            self.wanted = true;
            self.not_before = Some(now + RETRY_BASE * (1 << (self.failures - 1)));
        } else {
            self.wanted = false;
            (self.failures, self.not_before) = (0, Some(now + COMPACTION_REST));
        }
    }
}

impl Compacting {
    fn chores(&self) -> [&Chore; 2] {
        [&self.window, &self.memories]
    }
}

impl Hub {
    /// A turn has seen that there is something to do.
    pub(super) fn pressed(&mut self, key: &ProcessKey, window: bool, unread: bool, now: Duration) {
        let Some(process) = self.processes.get(key) else { return };
        let key = (key.0.clone(), process.conversation.clone(), process.lane);
        let Some(place) = self.conversations.get(&key).map(|conversation| conversation.place.clone()) else {
            return;
        };
        let Some(agent) = self.agents.get_mut(&key.0) else { return };
        if agent.compacting.len() >= MAX_CONVERSATIONS && !agent.compacting.contains_key(&key.1) {
            return; // the next turn says it again
        }
        let new = || Compacting { place, window: Chore::default(), memories: Chore::default() };
        let compacting = agent.compacting.entry(key.1.clone()).or_insert_with(new);
        if window {
            compacting.window.want(now);
        }
        if unread {
            compacting.memories.want(now);
        }
        self.compact(&key.0, now);
    }

    /// Starts what is due, as far as the agent's limit allows.
    pub(super) fn compact(&mut self, agent_id: &AgentId, now: Duration) {
        while self.stage == Stage::Running
            && let Some((conversation, place, work)) = self.next_compaction(agent_id, now)
        {
            let is_window = matches!(work, Work::Compaction { .. });
            let what = if is_window { "summary" } else { "memories" }.to_owned();
            let begin = Begin::new(ProcessKind::Compactor, what, COMPACTION_TIMEOUT);
            let process = self.start(agent_id, place, begin, now, work);
            let compacting =
                self.agents.get_mut(agent_id).and_then(|agent| agent.compacting.get_mut(&conversation));
            let Some(compacting) = compacting else { return };
            let chore = if is_window { &mut compacting.window } else { &mut compacting.memories };
            (chore.wanted, chore.running, chore.not_before) = (false, process, None);
        }
    }

    fn next_compaction(&self, agent: &AgentId, now: Duration) -> Option<(ConversationId, Place, Work)> {
        let all = &self.agents.get(agent)?.compacting;
        let running = |compacting: &Compacting| {
            compacting.chores().into_iter().filter(|chore| chore.running.is_some()).count()
        };
        if all.values().map(running).sum::<usize>() >= MAX_COMPACTORS {
            return None;
        }
        all.iter().find_map(|(conversation, compacting)| {
            let work = match compacting {
                Compacting { window, .. } if window.is_due(now) => {
                    Work::Compaction { tries: window.failures }
                }
                Compacting { memories, .. } if memories.is_due(now) => Work::Extraction,
                _ => return None,
            };
            Some((conversation.clone(), compacting.place.clone(), work))
        })
    }

    pub(super) fn compactor_ended(
        &mut self,
        key: &ProcessKey,
        conversation: &ConversationId,
        how: How,
        now: Duration,
    ) {
        let agent = self.agents.get_mut(&key.0);
        let Some(compacting) = agent.and_then(|agent| agent.compacting.get_mut(conversation)) else { return };
        let is_window = compacting.window.running == Some(key.1);
        let chore = if is_window { &mut compacting.window } else { &mut compacting.memories };
        chore.running = None;
        match how {
            How::Compacted { again, unread } => {
                chore.succeed();
                if is_window && again {
                    compacting.window.want(now);
                }
                if unread {
                    compacting.memories.want(now);
                }
            }
            // What nobody mends meanwhile fails again; and an archive counts its tries itself.
            How::Failed(Kind::Auth | Kind::NotFound, _) => chore.fail(false, now),
            _ => chore.fail(is_window, now),
        }
        self.tend_compaction(&key.0, conversation, now);
        self.compact(&key.0, now);
    }

    /// A wait may be over.
    pub(super) fn compaction_due(&mut self, agent: &AgentId, conversation: &ConversationId, now: Duration) {
        self.compact(agent, now);
        self.tend_compaction(agent, conversation, now);
    }

    /// Forgets what has nothing left to do, and sets the timer of what waits.
    fn tend_compaction(&mut self, agent_id: &AgentId, conversation: &ConversationId, now: Duration) {
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(compacting) = agent.compacting.get(conversation) else { return };
        let later = |chore: &&Chore| chore.not_before.is_some_and(|at| at > now);
        let next = compacting.chores().into_iter().filter(later).filter_map(|chore| chore.not_before).min();
        if compacting.chores().into_iter().all(|chore| chore.is_over(now)) {
            agent.compacting.remove(conversation);
        }
        self.timers.set(&TimerKey::Compaction(agent_id.clone(), conversation.clone()), next);
    }
}
