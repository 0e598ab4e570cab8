//! The offline responder: a deterministic model made of rules. It is the embedded default and the last
//! link of every fallback chain, so that the bot still remembers, recalls and runs commands when no
//! language model can be reached. It never pretends to be one.
//!
//! It goes through the same loop and the same tools as any other model and sees nothing but the
//! request: the tools on offer tell which process asks, the newest text says what for, and the tool
//! results after it how far the work has come. What it understands and says is data:
//! `prompts/en/offline/phrases.toml`.

mod answer;
mod branch;
mod channel;
mod ingestion;
mod job;
mod memories;
mod pattern;
mod phrases;
mod reminder;
mod request;
mod wire;
mod worker;

use rig_core::completion::CompletionRequest;
use rig_core::operation::Completion;
use rig_core::{DynModel, Model};

use self::answer::Answer;
use self::request::{Asking, Request};
use crate::clock::{Clock, SharedClock};

/// The provider in `offline/responder`.
pub const PROVIDER: &str = wire::PROVIDER;
/// The model in `offline/responder`.
pub const MODEL: &str = wire::MODEL;

/// The responder. The clock is for people who ask what time it is.
pub fn model(clock: SharedClock) -> DynModel<Completion> {
    Model::new(wire::OfflineWire, wire::Responder { clock }).erase()
}

fn answer(request: &CompletionRequest, clock: &dyn Clock) -> Result<Answer, String> {
    let table = phrases::table().map_err(|reason| format!("the phrase table cannot be read: {reason}"))?;
    let request = Request::of(request);
    Ok(match request.asking() {
        Asking::Channel => channel::answer(table, &request, clock),
        Asking::Job => job::answer(table, &request),
        Asking::Branch => branch::answer(table, &request),
        Asking::Worker => worker::answer(table, &request),
        Asking::Ingestion => ingestion::answer(table, &request),
        Asking::Other => Answer::Text(table.other.no_tools.clone()),
    })
}

/// How a channel tells a branch or a worker what it is for, in the description of the process.
mod order {
    pub(super) const REMEMBER: &str = "remember:";
    pub(super) const RECALL: &str = "recall:";
    pub(super) const FORGET: &str = "forget:";
    pub(super) const RUN: &str = "run:";
    /// What the prompt of a reminder begins with.
    pub(super) const REMIND: &str = "remind:";

    /// The topic of somebody who wants to see all memories; `words.everything` of the table knows it.
    pub(super) const EVERYTHING: &str = "everything";

    pub(super) fn write(verb: &str, what: &str) -> String {
        format!("{verb} {what}")
    }

    /// What follows the verb, if the description begins with it.
    pub(super) fn read<'a>(verb: &str, description: &'a str) -> Option<&'a str> {
        let start = description.get(..verb.len()).filter(|start| start.eq_ignore_ascii_case(verb))?;
        Some(description[start.len()..].trim())
    }
}
