//! What is going on while somebody is answered, for who looks on: thinking, tools, the words so far.
//!
//! It is kept in memory, of one answer at a time and of the latest only; what counts is what was stored in the end.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::drafts::{Drafts, Piece};
use crate::clock::Clock;
use crate::id::ConversationId;
use crate::message::{Bell, Saying};
use crate::thread::lock;

/// Steps of one answer that are kept; of more only the end is seen. It may make 50 model calls.
const STEPS_MAX: usize = 512;
/// Longest name of a tool, in bytes: a model may make up any.
const NAME_BYTES: usize = 64;

/// Of one agent.
pub struct Progress {
    steps: Mutex<Steps>,
    drafts: Drafts,
}

#[derive(Default)]
struct Steps {
    conversation: Option<ConversationId>,
    /// Of the first step in `list`: who has seen another answer begins anew.
    first: u64,
    list: Vec<Value>,
    is_over: bool,
}

/// What a client has not seen yet.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct News {
    /// Steps that were seen with this.
    pub seen: u64,
    pub steps: Vec<Value>,
    pub draft: Option<Piece>,
}

impl Progress {
    pub fn new(clock: &dyn Clock) -> Self {
        // Numbers of an earlier start may still be in the hands of clients.
        let first = u64::try_from(clock.now().0).unwrap_or_default();
        Self { steps: Mutex::new(Steps { first, ..Steps::default() }), drafts: Drafts::new(clock) }
    }

    /// What a client has not seen that has seen so many steps, and so many bytes of this draft.
    pub fn look(&self, conversation: &ConversationId, seen: u64, draft: (u64, usize)) -> News {
        let steps = lock(&self.steps);
        let end = steps.first + steps.list.len() as u64;
        if steps.conversation.as_ref() != Some(conversation) {
            return News { seen: end, steps: Vec::new(), draft: None };
        }
        let skipped = usize::try_from(seen.saturating_sub(steps.first)).unwrap_or(usize::MAX);
        let new = steps.list.get(skipped..).unwrap_or_default().to_vec();
        News { seen: end, steps: new, draft: self.drafts.look(conversation, draft.0, draft.1) }
    }

    fn step(&self, conversation: &ConversationId, step: Value) {
        let mut steps = lock(&self.steps);
        if steps.is_over || steps.conversation.as_ref() != Some(conversation) {
            let first = steps.first + steps.list.len() as u64;
            *steps = Steps { conversation: Some(conversation.clone()), first, ..Steps::default() };
        }
        let is_over = step["event"] == "done";
        if is_over || steps.list.len() < STEPS_MAX {
            steps.list.push(step);
        }
        steps.is_over = is_over;
    }
}

impl Bell for Progress {
    fn ring(&self, _conversation: &ConversationId) {}

    fn saying(&self, conversation: &ConversationId, saying: Saying<'_>) {
        let name = |tool: &str| crate::text::one_line(tool, NAME_BYTES).to_string();
        match saying {
            Saying::Thinking => self.step(conversation, json!({ "event": "thinking" })),
            Saying::Tool { tool, outcome: None } => {
                self.step(conversation, json!({ "event": "tool_started", "tool": name(tool) }));
            }
            Saying::Tool { tool, outcome: Some(done) } => {
                let step = json!({ "event": "tool_completed", "tool": name(tool), "failed": !done });
                self.step(conversation, step);
            }
            Saying::Failed => self.step(conversation, json!({ "event": "error" })),
            Saying::Over => self.step(conversation, json!({ "event": "done" })),
            Saying::Begins | Saying::More(_) => {}
        }
        self.drafts.hear(conversation, saying);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};

    fn events(news: &News) -> Vec<&str> {
        news.steps.iter().filter_map(|step| step["event"].as_str()).collect()
    }

    #[test]
    fn who_looks_on_sees_each_step_once_and_of_the_next_answer_all() {
        let progress = Progress::new(&*SimulatedClock::starting_at(Timestamp(7)));
        let (here, there) = (ConversationId::new("cortex:a"), ConversationId::new("cortex:b"));
        let before = progress.look(&here, 0, (0, 0));
        assert_eq!((before.seen, before.steps.len()), (7, 0));
        progress.saying(&here, Saying::Thinking);
        progress.saying(&here, Saying::Tool { tool: "shell", outcome: None });
        let news = progress.look(&here, before.seen, (0, 0));
        assert_eq!(events(&news), ["thinking", "tool_started"]);
        assert_eq!(events(&progress.look(&there, before.seen, (0, 0))), [""; 0], "another thread");
        progress.saying(&here, Saying::Tool { tool: "shell", outcome: Some(false) });
        progress.saying(&here, Saying::Begins);
        progress.saying(&here, Saying::More("twelve "));
        let news = progress.look(&here, news.seen, (0, 0));
        assert_eq!(news.steps, [json!({ "event": "tool_completed", "tool": "shell", "failed": true })]);
        assert_eq!(news.draft.map(|piece| piece.content), Some("twelve ".to_owned()));
        progress.saying(&here, Saying::Over);
        assert_eq!(events(&progress.look(&here, news.seen, (0, 0))), ["done"]);
        let all = progress.look(&here, news.seen, (0, 0)).seen;
        progress.saying(&there, Saying::Thinking);
        assert_eq!(events(&progress.look(&there, all, (0, 0))), ["thinking"], "numbers go on");
    }

    #[test]
    fn steps_are_bounded_and_the_end_is_always_seen() {
        let progress = Progress::new(&*SimulatedClock::starting_at(Timestamp(0)));
        let here = ConversationId::new("cortex:a");
        (0..STEPS_MAX * 2).for_each(|_| progress.saying(&here, Saying::Thinking));
        progress.saying(&here, Saying::Over);
        let news = progress.look(&here, 0, (0, 0));
        assert_eq!((news.steps.len(), events(&news).last()), (STEPS_MAX + 1, Some(&"done")));
    }
}
