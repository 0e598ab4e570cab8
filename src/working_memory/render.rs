//! From events to the lines of a prompt: a pure function. What is shown stays within the budgets,
//! whatever happened.

use std::cmp::{Ordering, Reverse};

use serde::Serialize;

use super::event::single_line;
use super::{Event, PAST_EVENTS_MAX, Recent};
use crate::clock::{Timestamp, Zone};
use crate::config::WorkingMemoryConfig;
use crate::id::ConversationId;
use crate::prompts::{self, PromptError, Template};

/// The estimate of the specification, cautious on purpose: three tokens for four characters.
const CHARACTERS_PER_TOKENS: (usize, usize) = (4, 3);
/// Parts of the budget, in percent: today, yesterday, the days before.
const SHARES: [usize; 3] = [60, 20, 20];
/// Characters of the template around the lines: in front of all, in front of each part of the events, in
/// front of the other conversations, and in each line (separators, marks, the line break).
const HEADER: usize = 110;
const HEADING: usize = 12;
const MAP_HEADING: usize = 80;
const LINE: usize = 12;
const DIRECT: usize = 9;
/// `59 min` and what parts it from the rest, the line break included.
const AGO: usize = 13;
/// Longest text of an event in a prompt, in bytes.
const EVENT_BYTES: usize = 160;
/// Longest name of a conversation in a prompt, in bytes.
const PLACE_BYTES: usize = 80;
/// Room for the topic of another conversation, in bytes, from the least that says something.
const TOPIC_BYTES: (usize, usize) = (24, 120);

/// Another conversation that was active lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    pub conversation: ConversationId,
    /// With one person.
    pub direct: bool,
    pub last_active: Timestamp,
    /// Who wrote last, and what; the agent itself does not count.
    pub sender: String,
    pub text: String,
}

/// Who reads, where and when.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub here: &'a ConversationId,
    pub now: Timestamp,
    pub zone: &'a Zone,
    pub config: &'a WorkingMemoryConfig,
}

#[derive(Serialize)]
struct EventLine {
    time: String,
    kind: &'static str,
    place: String,
    here: bool,
    direct: bool,
    text: String,
}

#[derive(Serialize)]
struct OtherLine {
    minutes: u64,
    place: String,
    direct: bool,
    text: String,
}

/// The text for the end of a channel's prompt; nothing when nothing happened. `others` are the most
/// recently active first.
///
/// # Errors
/// The template does not render; the tests would have shown it.
pub fn render(recent: &Recent, others: &[Other], view: &View<'_>) -> Result<Option<String>, PromptError> {
    if recent.is_empty() && others.is_empty() {
        return Ok(None);
    }
    let events = characters(view.config.token_budget).saturating_sub(HEADER);
    let room = |part: usize| (events * SHARES[part] / 100).saturating_sub(HEADING);
    let context = serde_json::json!({
        "zone": view.zone.name(),
        "today": lines(&recent.today, room(0), view.config.today_max_events, newest, "%H:%M", view),
        "yesterday": lines(&recent.yesterday, room(1), PAST_EVENTS_MAX, most_important, "%H:%M", view),
        "earlier": lines(&recent.earlier, room(2), PAST_EVENTS_MAX, most_important, "%a %H:%M", view),
        "others": other_lines(others, view),
    });
    let text = prompts::render(Template::Recent, &context)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn characters(tokens: usize) -> usize {
    tokens * CHARACTERS_PER_TOKENS.0 / CHARACTERS_PER_TOKENS.1
}

/// What goes first into a part that has not room for all.
type Precedence = fn(&Event, &Event) -> Ordering;

fn newest(one: &Event, other: &Event) -> Ordering {
    let key = |event: &Event| (event.created_at, OrderedImportance(event.importance));
    Reverse(key(one)).cmp(&Reverse(key(other))).then_with(|| last(one, other))
}

fn most_important(one: &Event, other: &Event) -> Ordering {
    let key = |event: &Event| (OrderedImportance(event.importance), event.created_at);
    Reverse(key(one)).cmp(&Reverse(key(other))).then_with(|| last(one, other))
}

/// The same order as in the index, so that the store can choose by it.
fn last(one: &Event, other: &Event) -> Ordering {
    (&other.conversation, other.id).cmp(&(&one.conversation, one.id))
}

/// A number that is never NaN.
#[derive(PartialEq)]
struct OrderedImportance(f64);

impl Eq for OrderedImportance {}

impl PartialOrd for OrderedImportance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedImportance {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// All of the events, or, where they are too many or too long, the first important ones.
fn lines(
    events: &[Event],
    room: usize,
    most: usize,
    precedence: Precedence,
    form: &str,
    view: &View<'_>,
) -> Vec<EventLine> {
    let with_line = |event| (event, line(event, form, view));
    let few = if events.len() <= most { events } else { &[] };
    let mut chosen: Vec<(&Event, EventLine)> = few.iter().map(with_line).collect();
    if few.len() < events.len() || chosen.iter().map(|(_, line)| cost(line)).sum::<usize>() > room {
        let mut important: Vec<&Event> =
            events.iter().filter(|event| event.importance >= view.config.min_importance).collect();
        important.sort_by(|one, other| precedence(one, other));
        let mut left = room;
        let fitting = important.into_iter().take(most).map(with_line).map_while(|(event, line)| {
            left = left.checked_sub(cost(&line))?;
            Some((event, line))
        });
        chosen = fitting.collect();
    }
    chosen.sort_by_key(|(event, _)| (event.created_at, event.id));
    chosen.into_iter().map(|(_, line)| line).collect()
}

fn line(event: &Event, form: &str, view: &View<'_>) -> EventLine {
    EventLine {
        time: view.zone.format(event.created_at, form),
        kind: event.kind.as_str(),
        place: event.conversation.as_ref().map(place).unwrap_or_default(),
        here: event.conversation.as_ref() == Some(view.here),
        direct: event.direct,
        text: single_line(&event.text, EVENT_BYTES),
    }
}

fn place(conversation: &ConversationId) -> String {
    single_line(conversation.as_str(), PLACE_BYTES)
}

fn cost(line: &EventLine) -> usize {
    let texts = [&line.time, line.kind, &line.place, &line.text];
    let written: usize = texts.iter().map(|text| text.chars().count()).sum();
    written + LINE + if line.direct { DIRECT } else { 0 }
}

/// As many of the conversations as have room with a topic, each with its share of what is left.
fn other_lines(others: &[Other], view: &View<'_>) -> Vec<OtherLine> {
    let others = &others[..others.len().min(view.config.map_max_channels)];
    let mut left = characters(view.config.map_token_budget).saturating_sub(MAP_HEADING);
    let mut lines = Vec::with_capacity(others.len());
    for (number, other) in others.iter().enumerate() {
        let place = place(&other.conversation);
        let mut cost = place.chars().count() + AGO + if other.direct { DIRECT } else { 0 };
        let topic = (left / (others.len() - number)).saturating_sub(cost);
        let said =
            if other.text.is_empty() { String::new() } else { format!("{}: {}", other.sender, other.text) };
        let text = single_line(&said, topic.clamp(TOPIC_BYTES.0, TOPIC_BYTES.1));
        cost += text.chars().count();
        let Some(rest) = left.checked_sub(cost) else { break };
        left = rest;
        let minutes = view.now.since(other.last_active).as_secs() / 60;
        lines.push(OtherLine { minutes, place, direct: other.direct, text });
    }
    lines
}
