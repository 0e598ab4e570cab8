//! The cortex: looks after an agent as a whole, beside all conversations. The hub gives it one errand at
//! a time, after a change; [`Errand::Tend`] is plain code and says which of the others are worth a model
//! call. Without a model of its own (`routing.cortex`) no errand ever asks one.

mod bulletin;
pub(super) mod chat;
mod profile;
mod synthesis;

pub use profile::introduce;

use std::time::Duration;

use rig_core::completion::Message;
use serde_json::json;

use super::AgentParts;
use super::compactor::Silent;
use super::driver::{Conduct, Driver, Ended};
use super::job::Job;
use super::link::Link;
use super::past::Past;
use crate::config::MemoryMode;
use crate::conversation::Place;
use crate::cortex::{CortexStore, NewCortexEvent};
use crate::error::{Fault, Kind};
use crate::event::{Errand, How};
use crate::id::ProcessKind;
use crate::memory::MemoryError;
use crate::prompts::{self, Template};

/// A commit of the text index waits until nothing was saved for this long; see `MemoryStore::maintain`.
const QUIET: Duration = Duration::from_secs(35);
/// What one process has come by; the hub starts it when it is due.
type Wants = Vec<(Errand, Duration)>;

impl AgentParts {
    /// What its cortex has written, in the agent's database too.
    pub fn cortex(&self) -> CortexStore {
        CortexStore::new(self.conversations.db().clone(), self.conversations.clock().clone())
    }

    /// Whether the cortex may ask a model by itself.
    fn cortex_has_model(&self) -> bool {
        let routing = &self.config.routing;
        routing.cortex.is_some() && self.llm.has_model(routing, ProcessKind::Cortex)
    }
}

/// What stands in the stable part of a channel's prompt; none when nothing is known, or this conversation does
/// not use the memory.
pub(super) fn briefing(parts: &AgentParts, place: &Place) -> Option<String> {
    if !parts.config.limits.cortex.enabled {
        return None;
    }
    if !parts.settings(place).is_ok_and(|settings| settings.memory_mode != MemoryMode::Off) {
        return None;
    }
    // A prompt without it is better than no answer.
    let bulletin = parts
        .cortex()
        .bulletin()
        .inspect_err(|error| log::warn!("a prompt goes without its bulletin: {error}"))
        .unwrap_or_default()?;
    Some(bulletin.text().to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn run(
    parts: &AgentParts,
    job: &Job,
    errand: Errand,
    notes: &[NewCortexEvent],
    link: &Link<'_>,
) -> How {
    let done = match errand {
        Errand::Tend => tend(parts, notes),
        Errand::Smooth => bulletin::smooth(parts, job, link).map(|()| Vec::new()),
        Errand::Profile => profile::ask(parts, job, link).map(|()| Vec::new()),
        Errand::Intraday | Errand::Daily => synthesis::write(parts, job, errand, link),
    };
    match done {
        Ok(wants) => How::Tended(wants),
        Err(how) => how,
    }
}

/// All that needs no model, and a look at what is worth one.
fn tend(parts: &AgentParts, notes: &[NewCortexEvent]) -> Result<Wants, How> {
    if !notes.is_empty() {
        parts.cortex().note(notes.to_vec()).map_err(|error| failed(&error))?;
    }
    let mut wants = Wants::new();
    tend_memory(parts).map_err(|error| failed(&error))?;
    if parts.memory.waits_for_quiet() {
        wants.push((Errand::Tend, QUIET));
    }
    wants.extend(bulletin::refresh(parts)?);
    wants.extend(profile::refresh(parts)?);
    wants.extend(synthesis::wants(parts)?);
    Ok(wants)
}

/// Commits the text index if that is due, prunes and merges if that is.
pub(super) fn tend_memory(parts: &AgentParts) -> Result<(), MemoryError> {
    let now = parts.conversations.now();
    parts.memory.maintain(now)?;
    if let Some(tended) = parts.memory.tend(now)? {
        log::debug!("memories tended: {tended:?}");
    }
    Ok(())
}

fn failed(error: &dyn Fault) -> How {
    How::Failed(error.kind(), error.to_string())
}

/// One call without tools; whatever is no text is a failure.
fn ask(
    parts: &AgentParts,
    job: &Job,
    link: &Link<'_>,
    what: &'static str,
    (template, context): (Template, serde_json::Value),
    words: &str,
) -> Result<String, How> {
    let preamble = prompts::render(template, &context).map_err(|error| failed(&error))?;
    let mut driver = Driver::of_one_call(parts, job, link, preamble, &parts.config.routing);
    let start = json!({ "kind": "cortex", "errand": what, "prompt": words });
    driver.begin(start, &Past::default(), &[]);
    let answer = answer(&mut driver, what, words, &mut Silent).inspect_err(|_| driver.give_up())?;
    driver.journal.flush().map_err(|error| failed(&error))?;
    Ok(answer)
}

/// The run of an errand, from the words to what the model makes of them; live or from its journal.
pub(super) fn answer(
    driver: &mut Driver<'_>,
    what: &str,
    words: &str,
    conduct: &mut dyn Conduct,
) -> Result<String, How> {
    let (ended, run) = driver.drive(Message::user(words), Vec::new(), conduct);
    let answer = match ended {
        Ended::Text(answer) if !answer.trim().is_empty() => answer.trim().to_owned(),
        Ended::Cancelled => return Err(How::Cancelled),
        Ended::Failed(kind, reason) => return Err(How::Failed(kind, reason)),
        Ended::Text(_) | Ended::Tools | Ended::Limit | Ended::Repeating => {
            return Err(How::Failed(Kind::Transient, format!("the model gave no {what}")));
        }
    };
    driver.end(json!({ "bytes": answer.len() }), &json!({ "answer": answer }), &run.full_history());
    Ok(answer)
}
