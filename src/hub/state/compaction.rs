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
    /// Memories from what was said, before it leaves the window.
    remember: Chore,
}

#[derive(Debug, Default)]
struct Chore {
    wanted: bool,
    running: Option<ProcessId>,
    failures: u32,
    not_before: Option<Duration>,
    /// What is wanted may wait until then.
    due: Option<Duration>,
}

impl Chore {
    /// Asks for it, unless it rests.
    fn want(&mut self, now: Duration) {
        self.wanted |= self.not_before.is_none_or(|at| at <= now);
    }

    /// Asks for it at this time, or earlier if somebody has asked for that.
    fn want_at(&mut self, at: Duration, now: Duration) {
        self.due = Some(self.due.filter(|due| self.wanted && *due < at).unwrap_or(at));
        self.want(now);
    }

    fn is_due(&self, now: Duration) -> bool {
        self.wanted && self.running.is_none() && self.next(now).is_none()
    }

    /// The time that it waits for.
    fn next(&self, now: Duration) -> Option<Duration> {
        let due = self.due.filter(|_| self.wanted);
        self.not_before.max(due).filter(|at| *at > now)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Window,
    Memories,
    Remember,
}

impl Which {
    fn of(work: &Work) -> Self {
        match work {
            Work::Compaction { .. } => Which::Window,
            Work::Extraction => Which::Memories,
            _ => Which::Remember,
        }
    }
}

impl Compacting {
    fn new(place: Place) -> Self {
        Self { place, window: Chore::default(), memories: Chore::default(), remember: Chore::default() }
    }

    fn chores(&self) -> [&Chore; 3] {
        [&self.window, &self.memories, &self.remember]
    }

    fn chore(&mut self, process: ProcessId) -> Option<&mut Chore> {
        let all = [&mut self.window, &mut self.memories, &mut self.remember];
        all.into_iter().find(|chore| chore.running == Some(process))
    }
}

impl Hub {
    /// A turn has seen that there is something to do.
    pub(super) fn pressed(
        &mut self,
        key: &ProcessKey,
        (window, unread): (bool, bool),
        remember: Option<Duration>,
        now: Duration,
    ) {
        let Some(process) = self.processes.get(key) else { return };
        let key = (key.0.clone(), process.conversation.clone(), process.lane);
        let Some(place) = self.conversations.get(&key).map(|conversation| conversation.place.clone()) else {
            return;
        };
        let Some(compacting) = self.compacting(&key.0, place) else { return };
        if window {
            compacting.window.want(now);
        }
        if unread {
            compacting.memories.want(now);
        }
        if let Some(wait) = remember {
            compacting.remember.want_at(now + wait, now);
        }
        self.compact(&key.0, now);
        self.tend_compaction(&key.0, &key.1, now);
    }

    /// A start has found a conversation from which memories are to be taken after this time.
    pub(super) fn remember(&mut self, agent: &AgentId, place: Place, wait: Duration, now: Duration) {
        let conversation = place.conversation.clone();
        let Some(compacting) = self.compacting(agent, place) else { return };
        compacting.remember.want_at(now + wait, now);
        self.compact(agent, now);
        self.tend_compaction(agent, &conversation, now);
    }

    /// None when there is no room for another conversation; its next turn says it again.
    fn compacting(&mut self, agent: &AgentId, place: Place) -> Option<&mut Compacting> {
        let all = &mut self.agents.get_mut(agent)?.compacting;
        if all.len() >= MAX_CONVERSATIONS && !all.contains_key(&place.conversation) {
            return None;
        }
        Some(all.entry(place.conversation.clone()).or_insert_with(|| Compacting::new(place)))
    }

    /// Starts what is due, as far as the agent's limit allows.
    pub(super) fn compact(&mut self, agent_id: &AgentId, now: Duration) {
        while self.stage == Stage::Running
            && let Some((conversation, place, work)) = self.next_compaction(agent_id, now)
        {
            let which = Which::of(&work);
            let what = if which == Which::Window { "summary" } else { "memories" }.to_owned();
            let begin = Begin::new(ProcessKind::Compactor, what, COMPACTION_TIMEOUT);
            let process = self.start(agent_id, place, begin, now, work);
            let compacting =
                self.agents.get_mut(agent_id).and_then(|agent| agent.compacting.get_mut(&conversation));
            let Some(compacting) = compacting else { return };
            let chore = match which {
                Which::Window => &mut compacting.window,
                Which::Memories => &mut compacting.memories,
                Which::Remember => &mut compacting.remember,
            };
            (chore.wanted, chore.running, chore.not_before, chore.due) = (false, process, None, None);
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
                Compacting { memories, remember, .. }
                    if remember.running.is_none() && memories.is_due(now) =>
                {
                    Work::Extraction
                }
                // Two that take memories from the same conversation could save the same.
                Compacting { memories, remember, .. }
                    if memories.running.is_none() && remember.is_due(now) =>
                {
                    Work::Persistence
                }
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
        let is_archive = compacting.memories.running == Some(key.1);
        let Some(chore) = compacting.chore(key.1) else { return };
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
            How::Remembered { next } => {
                chore.succeed();
                if let Some(wait) = next {
                    chore.want_at(now + wait, now);
                }
            }
            // What nobody mends meanwhile fails again; and an archive counts its tries itself.
            How::Failed(Kind::Auth | Kind::NotFound, _) => chore.fail(false, now),
            _ => chore.fail(!is_archive, now),
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
        let next = compacting.chores().into_iter().filter_map(|chore| chore.next(now)).min();
        if compacting.chores().into_iter().all(|chore| chore.is_over(now)) {
            agent.compacting.remove(conversation);
        }
        self.timers.set(&TimerKey::Compaction(agent_id.clone(), conversation.clone()), next);
    }
}
