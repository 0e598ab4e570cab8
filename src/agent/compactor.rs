//! The compactor: plain code that watches how full the window of a conversation is. It may have one
//! summary made, by one call of a model without tools, on a thread of its own; no turn waits for that.
//! First the summary, then the swap; only in an emergency the oldest lines leave without one.

mod decide;
mod extraction;
mod words;

use std::time::Duration;

use rig_core::completion::Message;
use serde_json::json;

use super::AgentParts;
use super::driver::{Conduct, Driver, Ended};
use super::job::Job;
use super::link::Link;
use super::past::Past;
use crate::conversation::{Change, History, InPlace, Place, Record, Window};
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::event::{How, What};
use crate::id::ProcessKind;
use crate::prompts::{self, Template};
use crate::text;
use decide::{Bounds, Step, step};

pub(super) use extraction::{
    close as close_extraction, close_remembering, remember, run as extract, unremembered,
};
pub(super) use words::fenced;

/// Emergencies that one turn or one process clears. The first leaves none; a further one comes when
/// somebody else has moved the window meanwhile, or it held more lines than are weighed at once.
const EMERGENCIES_MAX: usize = 8;
/// A word takes more than a token: what a summary is asked to have, in percent of its tokens.
const WORDS_PERCENT: usize = 70;
/// Bytes of a summary for each of its tokens; a longer one is cut.
const BYTES_PER_TOKEN: usize = 5;

impl Bounds {
    fn of(parts: &AgentParts, place: &Place, tries: u32) -> Result<Self, DbError> {
        let (config, limits) = (&parts.config, &parts.config.limits);
        let routing = parts.routing(place)?;
        Ok(Self {
            context_window: limits.context_window,
            max_lines: limits.history_messages,
            config: config.compaction.clone(),
            factor: parts.llm.token_factor(&routing, ProcessKind::Channel),
            has_model: parts.llm.has_model(&routing, ProcessKind::Compactor),
            tries,
        })
    }
}

/// What a turn sees. Where it begins too full (a crash, another config, a silent channel), the oldest
/// lines leave first: without a model, so that nobody waits.
pub(super) fn history(parts: &AgentParts, place: &Place) -> Result<History, DbError> {
    let conversation = &place.conversation;
    let (bounds, most) = (Bounds::of(parts, place, 0)?, parts.config.limits.history_messages);
    for _ in 0..EMERGENCIES_MAX {
        let history = parts.conversations.history(conversation, most)?;
        if !history.overflows && !bounds.is_emergency(history.lines.len(), history.tokens()) {
            return Ok(history);
        }
        let window = parts.conversations.window(conversation)?;
        let Some(Step::Drop { lines }) = step(&window, &bounds) else { return Ok(history) };
        drop_oldest(parts, place, &window, lines)?;
    }
    parts.conversations.history(conversation, most)
}

/// After a turn: tells the hub when there is something to do about the window.
pub(super) fn check(parts: &AgentParts, job: &Job, link: &Link<'_>) {
    match is_pressed(parts, job) {
        Ok((false, false, None)) => {}
        Ok((window, unread, remember)) => (link.up)(What::Pressed { window, unread, remember }),
        Err(error) => log::warn!("the window of {} was not weighed: {error}", job.place.conversation),
    }
}

/// Whether there is something to do about the window, whether memories are to be taken from what has left
/// it, and after which time from what was said since that was last done.
fn is_pressed(parts: &AgentParts, job: &Job) -> Result<(bool, bool, Option<Duration>), DbError> {
    let place = &job.place;
    let window = parts.conversations.window(&place.conversation)?;
    let remember = if extraction::is_open(job) { extraction::due_in(parts, place)? } else { None };
    Ok((step(&window, &Bounds::of(parts, place, 0)?).is_some(), is_unread(parts, place)?, remember))
}

/// Memories are to be taken from what leaves the window of this conversation.
fn takes_memories(parts: &AgentParts, place: &Place) -> Result<bool, DbError> {
    let config = &parts.config;
    Ok(config.compaction.extract_memories && takes_from(parts, place)?)
}

/// What is said there may be kept, and there is a model that can read it.
fn takes_from(parts: &AgentParts, place: &Place) -> Result<bool, DbError> {
    let settings = parts.settings(place)?;
    let routing = parts.config.routing.with(&settings.models);
    Ok(settings.memory_mode.writes() && parts.llm.has_model(&routing, ProcessKind::Branch))
}

fn is_unread(parts: &AgentParts, place: &Place) -> Result<bool, DbError> {
    Ok(takes_memories(parts, place)? && parts.conversations.any_unread(&place.conversation)?)
}

/// One process: clears an emergency, or has one summary made.
pub(super) fn run(parts: &AgentParts, job: &Job, tries: u32, link: &Link<'_>) -> How {
    let done = Bounds::of(parts, &job.place, tries).and_then(|bounds| one_step(parts, job, &bounds, link));
    done.unwrap_or_else(|error| How::Failed(error.kind(), error.to_string()))
}

fn one_step(parts: &AgentParts, job: &Job, bounds: &Bounds, link: &Link<'_>) -> Result<How, DbError> {
    let conversation = &job.place.conversation;
    for _ in 0..EMERGENCIES_MAX {
        if link.cancel.is_cancelled() {
            return Ok(How::Cancelled);
        }
        let window = parts.conversations.window(conversation)?;
        match step(&window, bounds) {
            Some(Step::Drop { lines }) => {
                drop_oldest(parts, &job.place, &window, lines)?;
            }
            Some(step) => return summarise(parts, job, bounds, link, &window, step),
            None => break,
        }
    }
    ended(parts, &job.place, bounds)
}

fn ended(parts: &AgentParts, place: &Place, bounds: &Bounds) -> Result<How, DbError> {
    let window = parts.conversations.window(&place.conversation)?;
    let again = step(&window, bounds).is_some();
    Ok(How::Compacted { again, unread: is_unread(parts, place)? })
}

/// The oldest lines leave without a summary; one may follow where a model can make it.
fn drop_oldest(parts: &AgentParts, place: &Place, window: &Window, lines: usize) -> Result<bool, DbError> {
    let conversation = &place.conversation;
    let leaving = parts.conversations.leaving(conversation, window, lines)?;
    let awaited = parts.llm.has_model(&*parts.routing(place)?, ProcessKind::Compactor);
    let unread = takes_memories(parts, place)?;
    log::info!("{conversation}: the window is full, {lines} messages leave it");
    let change = Change::Swap { leaving, in_place: InPlace::Marker { awaited }, unread };
    parts.conversations.change_window(conversation, change, Vec::new())
}

/// The words for the model, and what becomes of its answer.
struct Plan {
    words: String,
    /// What is made shorter is made of summaries.
    rolls: bool,
    change: Box<dyn FnOnce(String) -> Change>,
}

fn summarise(
    parts: &AgentParts,
    job: &Job,
    bounds: &Bounds,
    link: &Link<'_>,
    window: &Window,
    step: Step,
) -> Result<How, DbError> {
    let conversation = &job.place.conversation;
    let Some(plan) = plan(parts, &job.place, bounds, window, step)? else {
        return ended(parts, &job.place, bounds);
    };
    let (text, records) = match ask(parts, job, bounds, link, &plan) {
        Ok(asked) => asked,
        Err(how) => return Ok(how),
    };
    if parts.conversations.change_window(conversation, (plan.change)(text), records)? {
        ended(parts, &job.place, bounds)
    } else {
        let reason = "the window has moved while it was summarised; the summary is thrown away".to_owned();
        Ok(How::Failed(Kind::Transient, reason))
    }
}

fn plan(
    parts: &AgentParts,
    place: &Place,
    bounds: &Bounds,
    window: &Window,
    step: Step,
) -> Result<Option<Plan>, DbError> {
    let conversation = &place.conversation;
    let (generation, name) = (window.generation, &parts.config.display_name);
    Ok(match step {
        Step::Drop { .. } => None,
        Step::Summarise { lines } => {
            let leaving = parts.conversations.leaving(conversation, window, lines)?;
            let words = words::of_lines(&leaving.lines, name, bounds.input_tokens());
            let unread = takes_memories(parts, place)?;
            let change = move |text| Change::Swap { leaving, in_place: InPlace::Summary(text), unread };
            Some(Plan { words, rolls: false, change: Box::new(change) })
        }
        Step::Fill { summary } => {
            let Some(marker) = window.summaries.iter().find(|one| one.id == summary) else { return Ok(None) };
            let lines = parts.conversations.lines(conversation, marker.first_line, marker.last_line)?;
            let words = words::of_lines(&lines, name, bounds.input_tokens());
            let change = move |text| Change::Fill { generation, summary, text };
            Some(Plan { words, rolls: false, change: Box::new(change) })
        }
        Step::Roll { several } => {
            let of_these = window.summaries.iter().filter(|one| several.contains(&one.id));
            let words = words::of_summaries(of_these);
            let change = move |text| Change::Roll { generation, several, text };
            Some(Plan { words, rolls: true, change: Box::new(change) })
        }
    })
}

/// One call without tools. Whatever is no text is a failure, and then nothing changes.
fn ask(
    parts: &AgentParts,
    job: &Job,
    bounds: &Bounds,
    link: &Link<'_>,
    plan: &Plan,
) -> Result<(String, Vec<Record>), How> {
    let words = bounds.summary_tokens() * WORDS_PERCENT / 100;
    let context = json!({ "name": parts.config.display_name, "rolls": plan.rolls, "words": words });
    let preamble = prompts::render(Template::Compactor, &context)
        .map_err(|error| How::Failed(error.kind(), error.to_string()))?;
    let most = bounds.summary_tokens() * BYTES_PER_TOKEN;
    let start = json!({
        "kind": "compactor",
        "conversation": job.place.conversation.as_str(),
        "prompt": plan.words,
        "bytes": most,
    });
    let routing = parts.routing(&job.place).map_err(|error| How::Failed(error.kind(), error.to_string()))?;
    let mut driver = Driver::of_one_call(parts, job, link, preamble, &routing);
    driver.begin(start, &Past::default(), &[]);
    let summary = summary(&mut driver, &plan.words, most, &mut Silent).inspect_err(|_| driver.give_up());
    Ok((summary?, driver.journal.take()))
}

/// The run of a compactor, from the words to a summary of at most so many bytes.
pub(super) fn summary(
    driver: &mut Driver<'_>,
    words: &str,
    most: usize,
    conduct: &mut dyn Conduct,
) -> Result<String, How> {
    let (ended, run) = driver.drive(Message::user(words), Vec::new(), conduct);
    let answer = match ended {
        Ended::Text(answer) if !answer.trim().is_empty() => answer,
        Ended::Cancelled => return Err(How::Cancelled),
        Ended::Failed(kind, reason) => return Err(How::Failed(kind, reason)),
        Ended::Text(_) | Ended::Tools | Ended::Limit | Ended::Repeating => {
            return Err(How::Failed(Kind::Transient, "the model gave no summary".to_owned()));
        }
    };
    let summary = text::shorten(answer.trim(), most).into_owned();
    driver.end(json!({ "bytes": summary.len() }), &json!({ "summary": summary }), &run.full_history());
    Ok(summary)
}

/// Ends with the first text.
pub(super) struct Silent;

impl Conduct for Silent {}
