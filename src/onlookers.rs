//! Who looks on while processes work: pieces of answers and calls of tools as they come, for the operator's
//! eyes and for nobody's memory.
//!
//! One way only, and lossy: a run never waits for who looks on. What does not fit into an onlooker's queue is
//! dropped and counted, and the count stands where the loss was. While nobody looks on, telling costs one look
//! at a number.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::id::{AgentId, ConversationId, ProcessId};
use crate::thread::lock;

/// Onlookers at once: each costs every run of the daemon a little.
pub const ONLOOKERS_MAX: usize = 4;
/// Bytes that wait for one onlooker; some minutes of the fastest model's answer.
const QUEUE_BYTES_MAX: usize = 512 << 10;
/// What an event weighs beside its words.
const EVENT_BYTES: usize = 128;

/// What was seen, and of whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Sight {
    pub who: Arc<Who>,
    pub what: Deed,
}

/// A process and where it works.
#[derive(Debug, PartialEq, Eq)]
pub struct Who {
    pub agent: AgentId,
    pub conversation: ConversationId,
    pub process: ProcessId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// The process has begun.
    Started,
    /// A model begins to answer; pieces of an earlier answer that did not come to its end are void.
    Answering,
    Text(String),
    Reasoning(String),
    /// The model calls a tool; `call` tells calls of one answer apart.
    Call {
        call: usize,
        tool: Arc<str>,
    },
    /// A piece of the JSON of its arguments.
    Arguments {
        call: usize,
        tool: Arc<str>,
        json: String,
    },
    /// The tool begins.
    ToolStarted {
        tool: Arc<str>,
    },
    ToolFinished {
        tool: Arc<str>,
        failed: bool,
    },
    /// The process is over; in a word, how.
    Ended(&'static str),
}

impl Deed {
    fn bytes(&self) -> usize {
        EVENT_BYTES
            + match self {
                Deed::Text(text) | Deed::Reasoning(text) | Deed::Arguments { json: text, .. } => text.len(),
                _ => 0,
            }
    }
}

/// What an onlooker gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Sight(Arc<Sight>),
    /// What concerns the operator wherever they look.
    Notice(Arc<Notice>),
    /// So many were dropped here.
    Lost(u64),
}

/// News of the whole daemon.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice {
    /// In a word, such as `budget`.
    pub about: &'static str,
    pub text: String,
}

impl Seen {
    fn bytes(&self) -> usize {
        match self {
            Seen::Sight(sight) => sight.what.bytes(),
            Seen::Notice(notice) => EVENT_BYTES + notice.text.len(),
            Seen::Lost(_) => 0,
        }
    }
}

/// Of what an onlooker wants to see something; none: of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    pub agent: Option<AgentId>,
    pub conversation: Option<ConversationId>,
}

impl Interest {
    fn covers(&self, who: &Who) -> bool {
        self.agent.as_ref().is_none_or(|agent| *agent == who.agent)
            && self.conversation.as_ref().is_none_or(|conversation| *conversation == who.conversation)
    }
}

/// Called when there is something to see after there was nothing; must not block, nor look itself.
pub type Ring = Box<dyn Fn() + Send + Sync>;

/// All who look on.
#[derive(Default)]
pub struct Onlookers {
    count: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
}

impl Onlookers {
    /// Whether anybody looks on. One load: who tells something asks this first.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Never waits for an onlooker.
    pub fn tell(&self, who: &Arc<Who>, what: Deed) {
        let queues = lock(&self.queues);
        let mut wanted = queues.iter().filter(|queue| queue.interest.covers(who)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let sight = Seen::Sight(Arc::new(Sight { who: who.clone(), what }));
        for queue in wanted {
            queue.add(&sight);
        }
    }

    /// For everybody, whatever they want to see. Never waits either.
    pub fn announce(&self, notice: Notice) {
        let notice = Seen::Notice(Arc::new(notice));
        for queue in lock(&self.queues).iter() {
            queue.add(&notice);
        }
    }

    /// Begins to look on; none when enough do. What happened before is not seen.
    pub fn join(self: &Arc<Self>, interest: Interest) -> Option<Onlooker> {
        let mut queues = lock(&self.queues);
        if queues.len() >= ONLOOKERS_MAX {
            return None;
        }
        let queue = Arc::new(Queue { interest, ring: OnceLock::new(), waiting: Mutex::default() });
        queues.push(queue.clone());
        self.count.store(queues.len(), Ordering::Relaxed);
        Some(Onlooker { all: self.clone(), queue })
    }
}

struct Queue {
    interest: Interest,
    ring: OnceLock<Ring>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    seen: VecDeque<Seen>,
    bytes: usize,
    /// Behind all that waits.
    lost: u64,
}

impl Queue {
    fn add(&self, seen: &Seen) {
        let mut waiting = lock(&self.waiting);
        let was_empty = waiting.seen.is_empty() && waiting.lost == 0;
        let bytes = seen.bytes();
        if waiting.bytes + bytes > QUEUE_BYTES_MAX {
            waiting.lost += 1;
        } else {
            waiting.say_lost();
            waiting.bytes += bytes;
            waiting.seen.push_back(seen.clone());
        }
        drop(waiting);
        if was_empty && let Some(ring) = self.ring.get() {
            ring();
        }
    }
}

impl Waiting {
    fn say_lost(&mut self) {
        if self.lost > 0 {
            self.seen.push_back(Seen::Lost(std::mem::take(&mut self.lost)));
        }
    }
}

/// One who looks on, until it is dropped.
pub struct Onlooker {
    all: Arc<Onlookers>,
    queue: Arc<Queue>,
}

impl Onlooker {
    /// From now on; only the first ring counts.
    pub fn ring_with(&self, ring: Ring) {
        // A second one would be a bug of the caller that loses nothing: the first keeps ringing.
        self.queue.ring.set(ring).ok();
    }

    /// What has come since the last look, the oldest first: up to so many bytes of words, and at least one.
    pub fn look(&self, bytes_max: usize) -> Vec<Seen> {
        let mut waiting = lock(&self.queue.waiting);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < bytes_max {
            let Some(seen) = waiting.seen.pop_front() else { break };
            let weight = seen.bytes();
            waiting.bytes -= weight;
            bytes += weight;
            taken.push(seen);
        }
        if waiting.seen.is_empty() && waiting.lost > 0 {
            taken.push(Seen::Lost(std::mem::take(&mut waiting.lost)));
        }
        taken
    }
}

impl Drop for Onlooker {
    fn drop(&mut self) {
        let mut queues = lock(&self.all.queues);
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.all.count.store(queues.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::id::ProcessKind;

    fn who(conversation: &str) -> Arc<Who> {
        Arc::new(Who {
            agent: AgentId::new("main"),
            conversation: ConversationId::new(conversation),
            process: ProcessId::new(ProcessKind::Channel, 7),
        })
    }

    fn text(words: &str) -> Deed {
        Deed::Text(words.to_owned())
    }

    /// Words, and numbers of what was lost.
    fn shown(seen: &[Seen]) -> Vec<String> {
        let show = |seen: &Seen| match seen {
            Seen::Lost(count) => count.to_string(),
            Seen::Notice(notice) => format!("{}: {}", notice.about, notice.text),
            Seen::Sight(sight) => match &sight.what {
                Deed::Text(words) => words.clone(),
                other => format!("{other:?}"),
            },
        };
        seen.iter().map(show).collect()
    }

    #[test]
    fn while_nobody_looks_on_nothing_is_kept() {
        let onlookers = Arc::new(Onlookers::default());
        let who = who("c");
        assert!(!onlookers.any());
        onlookers.tell(&who, text("unseen"));
        assert_eq!(Arc::strong_count(&who), 1);
        let onlooker = onlookers.join(Interest::default()).unwrap();
        assert!(onlookers.any());
        assert_eq!(onlooker.look(usize::MAX), []);
        onlookers.tell(&who, text("seen"));
        assert_eq!(shown(&onlooker.look(usize::MAX)), ["seen"]);
        onlookers.tell(&who, text("left"));
        drop(onlooker);
        assert!(!onlookers.any());
        assert_eq!(Arc::strong_count(&who), 1, "what nobody fetched goes with the onlooker");
    }

    #[test]
    fn what_does_not_fit_is_counted_where_it_was_lost() {
        let onlookers = Arc::new(Onlookers::default());
        let onlooker = onlookers.join(Interest::default()).unwrap();
        let who = who("c");
        let half = "x".repeat(QUEUE_BYTES_MAX / 2 - EVENT_BYTES);
        for _ in 0..5 {
            onlookers.tell(&who, text(&half));
        }
        // One is taken, so that there is room again behind what was lost.
        assert_eq!(shown(&onlooker.look(1)), [half.as_str()]);
        onlookers.tell(&who, text("again"));
        assert_eq!(shown(&onlooker.look(usize::MAX)), [half.as_str(), "3", "again"]);
        for words in [half.as_str(), half.as_str(), "late"] {
            onlookers.tell(&who, text(words));
        }
        let seen = shown(&onlooker.look(usize::MAX));
        assert_eq!(seen, [half.as_str(), half.as_str(), "1"], "told although nothing follows");
        assert_eq!(onlooker.look(usize::MAX), []);
    }

    #[test]
    fn each_sees_what_it_wants_and_only_so_many_look_on() {
        let onlookers = Arc::new(Onlookers::default());
        let of = |agent: Option<&str>, conversation: Option<&str>| {
            let interest = Interest {
                agent: agent.map(AgentId::new),
                conversation: conversation.map(ConversationId::new),
            };
            onlookers.join(interest)
        };
        let all = of(None, None).unwrap();
        let one = of(Some("main"), Some("a")).unwrap();
        let other = of(Some("other"), None).unwrap();
        let fourth = of(None, Some("b")).unwrap();
        assert!(of(None, None).is_none());
        onlookers.tell(&who("a"), text("in a"));
        onlookers.tell(&who("b"), text("in b"));
        assert_eq!(shown(&all.look(usize::MAX)), ["in a", "in b"]);
        assert_eq!(shown(&one.look(usize::MAX)), ["in a"]);
        assert_eq!(other.look(usize::MAX), []);
        onlookers.announce(Notice { about: "budget", text: "low".to_owned() });
        for everybody in [&all, &one, &other] {
            assert_eq!(shown(&everybody.look(usize::MAX)), ["budget: low"]);
        }
        assert_eq!(shown(&fourth.look(usize::MAX)), ["in b", "budget: low"]);
        drop(other);
        assert!(of(None, None).is_some());
    }

    #[test]
    fn it_rings_once_until_somebody_looks() {
        let onlookers = Arc::new(Onlookers::default());
        let onlooker = onlookers.join(Interest::default()).unwrap();
        let rings = Arc::new(AtomicUsize::new(0));
        let counted = rings.clone();
        onlooker.ring_with(Box::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        let who = who("c");
        for _ in 0..3 {
            onlookers.tell(&who, Deed::Started);
        }
        assert_eq!(rings.load(Ordering::SeqCst), 1);
        assert_eq!(onlooker.look(usize::MAX).len(), 3);
        onlookers.tell(&who, Deed::Ended("done"));
        assert_eq!(rings.load(Ordering::SeqCst), 2);
    }
}
