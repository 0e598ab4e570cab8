//! What a worker has to do before it may end, and what its history keeps on the way.

use rig_core::completion::Message;

use super::berth::Berth;
use crate::agent::driver::{Conduct, Heard};
use crate::agent::link::ProcessDesk;
use crate::agent::room::Trim;
use crate::effect::Effect;
use crate::prompts;

/// Times that a worker is asked in a row to say what came of its work.
const MAX_NUDGES: usize = 2;

pub(super) fn outcome_of(desk: &ProcessDesk<'_>) -> Option<String> {
    desk.effects.iter().rev().find_map(|effect| match effect {
        Effect::Outcome { text, .. } => Some(text.clone()),
        _ => None,
    })
}

/// A worker may not end with text alone: it must have said what came of the work.
pub(super) struct OutcomeGate<'a> {
    nudges: usize,
    /// It was asked often enough and still did not say.
    pub(super) refused: bool,
    /// It has come as far as to have called a tool.
    has_worked: bool,
    pub(super) berth: &'a mut dyn Berth,
}

impl<'a> OutcomeGate<'a> {
    pub(super) fn new(berth: &'a mut dyn Berth) -> Self {
        Self { nudges: 0, refused: false, has_worked: false, berth }
    }

    /// For each thing that the worker is told to do.
    pub(super) fn begin(&mut self) {
        (self.nudges, self.refused) = (0, false);
        self.berth.begin();
    }
}

impl Conduct for OutcomeGate<'_> {
    fn before_model(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.berth.before_model(messages)
    }

    fn too_long(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.berth.too_long(messages)
    }

    fn is_patient(&self) -> bool {
        self.has_worked
    }

    fn on_text(&mut self, _text: &str, desk: &mut ProcessDesk<'_>) -> Option<String> {
        if outcome_of(desk).is_some() {
            return None;
        }
        if self.nudges >= MAX_NUDGES {
            self.refused = true;
            return None;
        }
        self.nudges += 1;
        Some(prompts::notice("worker_nudge").to_owned())
    }

    fn on_tools(&mut self, _desk: &mut ProcessDesk<'_>) -> bool {
        self.nudges = 0;
        self.has_worked = true;
        false
    }

    fn next_message(&mut self, _desk: &mut ProcessDesk<'_>, _left: usize) -> Option<Heard> {
        self.berth.next_message().map(Heard::routed)
    }
}
