//! What a process shows to who looks on: its start, the pieces of its model's answers, its tools, its end.
//!
//! Keys are hidden here, also one that is cut between two pieces ([`Veil`]). While nobody looks on, each of
//! these costs one look at a number and nothing is kept.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use crate::event::How;
use crate::id::{AgentId, ConversationId, ProcessId, ProcessKind};
use crate::llm::Delta;
use crate::onlookers::{Deed, Onlookers, Who};
use crate::secrets::{Scrubber, Veil};

/// Bytes of one event; a longer piece becomes several.
const PIECE_BYTES_MAX: usize = 4 << 10;
/// Parts of one answer that are followed at once: its text, its reasoning and more calls than models make.
const PARTS_MAX: usize = 64;

/// Belongs to one process and its thread.
pub struct Stage {
    onlookers: Arc<Onlookers>,
    scrubber: Arc<Scrubber>,
    agent: AgentId,
    conversation: ConversationId,
    process: ProcessId,
    /// Made when the first one looks on.
    who: OnceCell<Arc<Who>>,
    answer: RefCell<Answer>,
}

/// What has come of the answer that is being written.
#[derive(Default)]
struct Answer {
    parts: Vec<Part>,
    /// The one that a piece came of last.
    current: usize,
}

struct Part {
    kind: PartKind,
    veil: Veil,
}

#[derive(Clone, PartialEq, Eq)]
enum PartKind {
    Text,
    Reasoning,
    Call { call: usize, tool: Arc<str> },
}

impl PartKind {
    fn deed(&self, words: String) -> Deed {
        match self {
            PartKind::Text => Deed::Text(words),
            PartKind::Reasoning => Deed::Reasoning(words),
            PartKind::Call { call, tool } => Deed::Arguments { call: *call, tool: tool.clone(), json: words },
        }
    }

    fn is_call(&self, wanted: usize) -> bool {
        matches!(self, PartKind::Call { call, .. } if *call == wanted)
    }
}

impl Stage {
    pub fn new(
        onlookers: Arc<Onlookers>,
        scrubber: Arc<Scrubber>,
        (agent, conversation, process): (AgentId, ConversationId, ProcessId),
    ) -> Self {
        let (who, answer) = (OnceCell::new(), RefCell::default());
        Self { onlookers, scrubber, agent, conversation, process, who, answer }
    }

    /// One that nobody can look at, for runs that are only replayed.
    pub fn hidden() -> Self {
        let nobody = (AgentId::new(""), ConversationId::new(""), ProcessId::new(ProcessKind::Channel, 0));
        Self::new(Arc::default(), Arc::default(), nobody)
    }

    pub fn started(&self) {
        self.tell(|| Deed::Started);
    }

    pub fn ended(&self, how: &How) {
        self.tell(|| {
            Deed::Ended(match how {
                How::Deferred { .. } => "deferred",
                How::Cancelled => "cancelled",
                How::Failed(..) => "failed",
                How::Panicked(_) => "broke",
                How::Idle => "nothing to do",
                _ => "done",
            })
        });
    }

    pub(super) fn tool_started(&self, tool: &str) {
        self.tell(|| Deed::ToolStarted { tool: self.clean(tool) });
    }

    pub(super) fn tool_finished(&self, tool: &str, failed: bool) {
        self.tell(|| Deed::ToolFinished { tool: self.clean(tool), failed });
    }

    pub(super) fn hear(&self, delta: &Delta<'_>) {
        let answer = &mut *self.answer.borrow_mut();
        if !self.onlookers.any() {
            return answer.parts.clear();
        }
        match delta {
            Delta::Begins => {
                answer.parts.clear();
                self.tell(|| Deed::Answering);
            }
            Delta::Text(text) => self.go_on(answer, PartKind::Text, text),
            Delta::Reasoning(text) => self.go_on(answer, PartKind::Reasoning, text),
            Delta::Call { call, tool } => {
                let (call, tool) = (*call, self.clean(tool));
                self.switch(answer, PartKind::Call { call, tool: tool.clone() });
                self.tell(|| Deed::Call { call, tool });
            }
            Delta::Arguments { call, json } => {
                let known = answer.parts.iter().find(|part| part.kind.is_call(*call));
                // Who has come in the middle of it has not heard which tool it is.
                let unknown = || PartKind::Call { call: *call, tool: Arc::from("") };
                self.go_on(answer, known.map_or_else(unknown, |part| part.kind.clone()), json);
            }
            Delta::Called { call } => {
                if let Some(part) = answer.parts.iter_mut().find(|part| part.kind.is_call(*call)) {
                    self.show(&part.kind, part.veil.end(&self.scrubber));
                }
            }
        }
    }

    /// The answer is over, whatever came of it.
    pub(super) fn answered(&self) {
        let answer = std::mem::take(&mut *self.answer.borrow_mut());
        for mut part in answer.parts {
            self.show(&part.kind, part.veil.end(&self.scrubber));
        }
    }

    fn go_on(&self, answer: &mut Answer, kind: PartKind, mut words: &str) {
        let Some(part) = self.switch(answer, kind) else { return };
        while !words.is_empty() {
            let (piece, rest) = words.split_at(words.floor_char_boundary(PIECE_BYTES_MAX.min(words.len())));
            self.show(&part.kind, part.veil.add(piece, &self.scrubber));
            words = rest;
        }
    }

    /// What came of another part is shown before, as far as it can be.
    fn switch<'a>(&self, answer: &'a mut Answer, kind: PartKind) -> Option<&'a mut Part> {
        let known = answer.parts.iter().position(|part| part.kind == kind);
        if known != Some(answer.current)
            && let Some(part) = answer.parts.get_mut(answer.current)
        {
            self.show(&part.kind, part.veil.pause(&self.scrubber));
        }
        if known.is_none() && answer.parts.len() < PARTS_MAX {
            let veil = match kind {
                PartKind::Call { .. } => Veil::of_json(),
                PartKind::Text | PartKind::Reasoning => Veil::of_text(),
            };
            answer.parts.push(Part { kind, veil });
        } else if known.is_none() {
            return None;
        }
        answer.current = known.unwrap_or(answer.parts.len() - 1);
        answer.parts.get_mut(answer.current)
    }

    fn show(&self, kind: &PartKind, words: String) {
        if !words.is_empty() {
            self.tell(|| kind.deed(words));
        }
    }

    /// A model may make up any name of a tool.
    /// What may stay of what a tool has read: the model has no use for the secrets of the config, and the journal
    /// must not hold them.
    pub(super) fn hide(&self, called: Result<String, String>) -> Result<String, String> {
        let hide = |result: String| self.scrubber.hide_known(&result);
        called.map(hide).map_err(hide)
    }

    fn clean(&self, tool: &str) -> Arc<str> {
        Arc::from(self.scrubber.hide_keys(&tool[..tool.floor_char_boundary(PIECE_BYTES_MAX.min(tool.len()))]))
    }

    fn tell(&self, what: impl FnOnce() -> Deed) {
        if !self.onlookers.any() {
            return;
        }
        let who = self.who.get_or_init(|| {
            let (agent, conversation) = (self.agent.clone(), self.conversation.clone());
            Arc::new(Who { agent, conversation, process: self.process })
        });
        self.onlookers.tell(who, what());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::onlookers::{Interest, Seen};

    fn stage(onlookers: &Arc<Onlookers>) -> Stage {
        let who = (AgentId::new("main"), ConversationId::new("c"), ProcessId::new(ProcessKind::Worker, 3));
        Stage::new(onlookers.clone(), Arc::new(Scrubber::new(["k3y-of-the-house"])), who)
    }

    fn shown(seen: Vec<Seen>) -> Vec<String> {
        let show = |seen| match seen {
            Seen::Lost(count) => format!("lost {count}"),
            Seen::Notice(notice) => notice.text.clone(),
            Seen::Sight(sight) => match &sight.what {
                Deed::Text(words) => format!("text {words}"),
                Deed::Reasoning(words) => format!("reasoning {words}"),
                Deed::Call { call, tool } => format!("call {call} {tool}"),
                Deed::Arguments { call, tool, json } => format!("{call} {tool} {json}"),
                other => format!("{other:?}"),
            },
        };
        seen.into_iter().map(show).collect()
    }

    #[test]
    fn the_parts_of_an_answer_come_in_their_order_and_no_key_comes_with_them() {
        let onlookers = Arc::new(Onlookers::default());
        let (stage, onlooker) = (stage(&onlookers), onlookers.join(Interest::default()).unwrap());
        for delta in [
            Delta::Begins,
            Delta::Reasoning("the key is k3y-of"),
            Delta::Reasoning("-the-house, so"),
            Delta::Text("Let me"),
            Delta::Call { call: 1, tool: "shell" },
            Delta::Arguments { call: 1, json: "{\"command\": \"echo k3y\\u002dof-" },
            Delta::Call { call: 2, tool: "reply" },
            Delta::Arguments { call: 2, json: "{}" },
            Delta::Arguments { call: 1, json: "the-house\"}" },
            Delta::Called { call: 1 },
            Delta::Called { call: 2 },
            Delta::Text(" see"),
        ] {
            stage.hear(&delta);
        }
        stage.answered();
        stage.tool_started("shell");
        stage.tool_finished("shell", true);
        let seen = shown(onlooker.look(usize::MAX));
        assert_eq!(
            seen,
            [
                "Answering",
                "reasoning the key is ",
                "reasoning [hidden], ",
                "reasoning so",
                "text Let ",
                "text me",
                "call 1 shell",
                "1 shell {\"command\": \"echo ",
                "call 2 reply",
                "2 reply {}",
                "1 shell [hidden]\"}",
                "text  ",
                "text see",
                "ToolStarted { tool: \"shell\" }",
                "ToolFinished { tool: \"shell\", failed: true }",
            ]
        );
    }

    #[test]
    fn while_nobody_looks_on_nothing_is_kept_and_who_comes_late_sees_what_follows() {
        let onlookers = Arc::new(Onlookers::default());
        let stage = stage(&onlookers);
        stage.started();
        stage.hear(&Delta::Text("unseen"));
        stage.hear(&Delta::Call { call: 1, tool: "shell" });
        assert!(stage.answer.borrow().parts.is_empty() && stage.who.get().is_none());
        let onlooker = onlookers.join(Interest::default()).unwrap();
        stage.hear(&Delta::Arguments { call: 1, json: "late\" " });
        assert_eq!(shown(onlooker.look(usize::MAX)), ["1  late\" "]);
        stage.hear(&Delta::Text("left"));
        drop(onlooker);
        stage.hear(&Delta::Text("unseen"));
        assert!(stage.answer.borrow().parts.is_empty());
    }

    #[test]
    fn a_long_piece_becomes_several() {
        let onlookers = Arc::new(Onlookers::default());
        let (stage, onlooker) = (stage(&onlookers), onlookers.join(Interest::default()).unwrap());
        let long = "Grüße ".repeat(PIECE_BYTES_MAX);
        stage.hear(&Delta::Text(&long));
        stage.answered();
        let seen = shown(onlooker.look(usize::MAX));
        assert!(seen.len() >= long.len() / PIECE_BYTES_MAX && seen.iter().all(|words| words.len() < 5000));
        let whole: String = seen.iter().map(|words| words.strip_prefix("text ").unwrap()).collect();
        assert_eq!(whole, long);
    }
}
