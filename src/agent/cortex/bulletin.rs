//! The bulletin: what the agent knows, in a few hundred words, for the stable part of the channel's
//! prompt. It is rendered without a model, from memories that are trusted and from tasks; the same
//! memories and tasks give the same bytes. A model may put it into better words afterwards.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::{Wants, failed};
use crate::agent::AgentParts;
use crate::agent::job::Job;
use crate::agent::link::Link;
use crate::clock::Zone;
use crate::cortex::Bulletin;
use crate::event::{Errand, How};
use crate::memory::{LIMIT_MAX, Memory, MemoryError, MemoryStore, MemoryType, Mode, SearchQuery, Sort};
use crate::prompts::{self, Template};
use crate::tasks::{Filter, LISTED_MAX, Status, Task};
use crate::text;

/// Changes with every change of the rendering itself, so that it is made anew.
const FORM: u32 = 1;
/// Longest line, in bytes: one memory must not take the room of all others.
const LINE_BYTES: usize = 240;
/// Tasks of each status.
const TASKS_MAX: usize = 20;
/// A model that was just asked for something else is left alone for a moment; more changes may come.
const SMOOTH_AFTER: Duration = Duration::from_secs(10);

/// One of the eight parts that come from the memory, in the order of the bulletin.
struct Section {
    title: &'static str,
    mode: Mode,
    memory_type: Option<MemoryType>,
    sort: Option<Sort>,
    most: usize,
    /// The day is part of what is known.
    dated: bool,
}

const fn typed(title: &'static str, memory_type: MemoryType, sort: Sort, most: usize) -> Section {
    Section { title, mode: Mode::Typed, memory_type: Some(memory_type), sort: Some(sort), most, dated: false }
}

const SECTIONS: [Section; 8] = [
    typed("identity", MemoryType::Identity, Sort::Importance, 15),
    Section { title: "recent", mode: Mode::Recent, memory_type: None, sort: None, most: 15, dated: true },
    Section { dated: true, ..typed("decisions", MemoryType::Decision, Sort::Recent, 10) },
    Section {
        title: "important",
        mode: Mode::Important,
        memory_type: None,
        sort: None,
        most: 10,
        dated: false,
    },
    typed("preferences", MemoryType::Preference, Sort::Importance, 10),
    typed("goals", MemoryType::Goal, Sort::Recent, 10),
    Section { dated: true, ..typed("events", MemoryType::Event, Sort::Recent, 10) },
    typed("observations", MemoryType::Observation, Sort::Recent, 5),
];

/// Who takes a memory first that belongs to several: what is typed, then what is important, then what is new.
const CLAIM_ORDER: [usize; 8] = [0, 2, 4, 5, 6, 7, 3, 1];

/// Renders the bulletin anew if what it is made from has changed, and it is time.
pub(super) fn refresh(parts: &AgentParts) -> Result<Wants, How> {
    let (store, now) = (parts.cortex(), parts.conversations.now());
    let old = store.bulletin().map_err(|error| failed(&error))?;
    let board = open_tasks(parts)?;
    let inputs = inputs(parts, &board)?;
    if old.as_ref().is_some_and(|old| old.inputs == inputs) {
        return Ok(smooth_if_due(parts, old.as_ref()));
    }
    if let Some(old) = &old {
        let age = now.since(old.changed_at);
        let left = parts.config.limits.cortex.bulletin_interval.saturating_sub(age);
        let whole = parts.memory.are_all_there(&old.memories).map_err(|error| failed(&error))?;
        // What was forgotten is not to be told again; everything else has time.
        if whole && !old.rendered.is_empty() && !left.is_zero() {
            let mut wants = smooth_if_due(parts, Some(old));
            wants.push((Errand::Tend, left));
            return Ok(wants);
        }
    }
    let sections = gather(&parts.memory).map_err(|error| failed(&error))?;
    let words = parts.config.limits.cortex.bulletin_max_words;
    let rendered = render(&sections, &board, words, &parts.config.timezone);
    let (rendered, memories) = rendered.map_err(|error| failed(&error))?;
    if old.is_none() && rendered.is_empty() {
        // Nothing is known: nothing is written.
        return Ok(Wants::new());
    }
    let new = Bulletin { inputs, memories, rendered, smoothed: None, changed_at: now };
    store.set_bulletin(new).map_err(|error| failed(&error))?;
    let now = store.bulletin().map_err(|error| failed(&error))?;
    Ok(smooth_if_due(parts, now.as_ref()))
}

fn smooth_if_due(parts: &AgentParts, bulletin: Option<&Bulletin>) -> Wants {
    let rough = bulletin.is_some_and(|bulletin| bulletin.smoothed.is_none() && !bulletin.rendered.is_empty());
    if rough && parts.cortex_has_model() { vec![(Errand::Smooth, SMOOTH_AFTER)] } else { Wants::new() }
}

fn open_tasks(parts: &AgentParts) -> Result<Vec<Task>, How> {
    let filter = Filter { open: true, limit: LISTED_MAX, ..Filter::default() };
    parts.tasks().list(&filter).map_err(|error| failed(&error))
}

/// All that the rendering depends on. The clock is not in it: what fades does not change the prompt by itself.
fn inputs(parts: &AgentParts, board: &[Task]) -> Result<String, How> {
    let change = parts.memory.last_change().map_err(|error| failed(&error))?;
    let words = parts.config.limits.cortex.bulletin_max_words;
    let mut inputs = format!("{FORM} memory {change} words {words} zone {}", parts.config.timezone.name());
    for task in board {
        // Writing to a text never fails.
        write!(inputs, " {}.{}", task.number, task.revision).ok();
    }
    Ok(inputs)
}

/// For each section the trusted memories that it may show. A memory that others wrote (a file, a page, the
/// output of a command) never enters: the prompt's stable part is read as the agent's own knowledge.
fn gather(memory: &MemoryStore) -> Result<[Vec<Memory>; 8], MemoryError> {
    let mut seen = BTreeSet::new();
    let mut sections: [Vec<Memory>; 8] = Default::default();
    for place in CLAIM_ORDER {
        let Section { mode, memory_type, sort, most, .. } = SECTIONS[place];
        let query = SearchQuery { memory_type, sort, limit: LIMIT_MAX, ..SearchQuery::of(mode) };
        let hits = memory.search(&query)?;
        let known = hits.into_iter().map(|hit| hit.memory).filter(Memory::is_trusted);
        sections[place] = known.filter(|memory| seen.insert(memory.id.clone())).take(most).collect();
    }
    Ok(sections)
}

#[derive(Serialize)]
struct Shown {
    title: &'static str,
    lines: Vec<String>,
}

/// At most `words` words: each section in turn gives its next line, as long as there is room for it.
fn render(
    sections: &[Vec<Memory>; 8],
    board: &[Task],
    words: usize,
    zone: &Zone,
) -> Result<(String, Vec<String>), prompts::PromptError> {
    let mut queues: Vec<Vec<(Option<&str>, String)>> = sections
        .iter()
        .zip(&SECTIONS)
        .map(|(memories, section)| {
            let line = |memory: &Memory| memory_line(memory, section.dated, zone);
            memories.iter().map(|memory| (Some(memory.id.as_str()), line(memory))).collect()
        })
        .collect();
    queues.push(task_lines(board).into_iter().map(|line| (None, line)).collect());
    let titles = SECTIONS.iter().map(|section| section.title).chain(["tasks"]);
    let mut shown: Vec<Shown> = titles.map(|title| Shown { title, lines: Vec::new() }).collect();
    let (mut left, mut memories) = (words, Vec::new());
    let longest = queues.iter().map(Vec::len).max().unwrap_or_default();
    for round in 0..longest {
        for (queue, shown) in queues.iter().zip(&mut shown) {
            let Some((id, line)) = queue.get(round) else { continue };
            // The heading of a section takes some words too.
            let cost = count_words(line) + if shown.lines.is_empty() { HEADING_WORDS } else { 0 };
            let Some(rest) = left.checked_sub(cost) else { continue };
            left = rest;
            shown.lines.push(line.clone());
            memories.extend(id.map(str::to_owned));
        }
    }
    memories.sort();
    shown.retain(|shown| !shown.lines.is_empty());
    if shown.is_empty() {
        return Ok((String::new(), memories));
    }
    Ok((prompts::render(Template::Bulletin, &json!({ "sections": shown }))?, memories))
}

/// Words of the longest heading of a section in the template.
const HEADING_WORDS: usize = 5;

fn memory_line(memory: &Memory, dated: bool, zone: &Zone) -> String {
    let words = text::one_line(&memory.content, LINE_BYTES);
    if dated { format!("{}: {words}", zone.format(memory.created_at, "%Y-%m-%d")) } else { words }
}

/// What is being done and what waits. A task that a process has proposed is only counted until a person has
/// approved it: its words may come from a file or a page.
fn task_lines(board: &[Task]) -> Vec<String> {
    let mut lines = Vec::new();
    let trusted = |task: &&Task| !task.created_by.is_process() || task.approved_by.is_some();
    for (status, name) in
        [(Status::InProgress, "in progress"), (Status::Ready, "ready"), (Status::Backlog, "backlog")]
    {
        let of_status = board.iter().filter(|task| task.status == status).filter(trusted).take(TASKS_MAX);
        lines.extend(
            of_status
                .map(|task| format!("#{} {name}: {}", task.number, text::one_line(&task.title, LINE_BYTES))),
        );
    }
    let waiting = board.iter().filter(|task| task.status == Status::PendingApproval).count();
    if waiting > 0 {
        lines.push(format!("{} {waiting}", prompts::notice("bulletin_proposed")));
    }
    lines
}

fn count_words(line: &str) -> usize {
    line.split_whitespace().count()
}

/// Puts the rendered bulletin into the words of a model. Whatever goes wrong, the rendered one stays.
pub(super) fn smooth(parts: &AgentParts, job: &Job, link: &Link<'_>) -> Result<(), How> {
    let store = parts.cortex();
    let Some(bulletin) = store.bulletin().map_err(|error| failed(&error))? else { return Ok(()) };
    if bulletin.smoothed.is_some() || bulletin.rendered.is_empty() {
        return Ok(());
    }
    let words = parts.config.limits.cortex.bulletin_max_words;
    let context = json!({ "name": parts.config.display_name, "words": words });
    let prompt = (Template::CortexBulletin, context);
    let answer = super::ask(parts, job, link, "bulletin", prompt, &bulletin.rendered)?;
    let smoothed = plain(&answer, words);
    if !store.smooth_bulletin(bulletin.rendered, smoothed).map_err(|error| failed(&error))? {
        log::debug!("the bulletin has changed while it was put into words");
    }
    Ok(())
}

/// Without headings, which would part the prompt, and with at most `words` words.
fn plain(answer: &str, words: usize) -> String {
    let (mut left, mut lines) = (words, Vec::new());
    for line in answer.lines() {
        let line = line.trim().trim_start_matches('#').trim_start();
        let taken: Vec<&str> = line.split_whitespace().take(left).collect();
        left -= taken.len();
        lines.push(taken.join(" "));
        if left == 0 {
            break;
        }
    }
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
