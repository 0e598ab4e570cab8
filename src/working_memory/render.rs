//! From events to the lines of a prompt: a pure function. What is shown stays within the budgets,
//! whatever happened.

use std::cmp::{Ordering, Reverse};

use serde::Serialize;

use super::event::{TEXT_BYTES_MAX, single_line};
use super::{Batch, Event, PAST_EVENTS_MAX, Recent, Synthesis};
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
/// Of the room for today, in percent, what the newest paragraph takes at most; older ones have what the
/// events leave.
const NEWEST_PARAGRAPH: usize = 60;
/// Of the room for other days, in percent, what the events take at most beside a summary.
const BESIDE_SUMMARY: usize = 50;
/// What is said in front of a synthesis, and the least of its text that says something.
const NOTE_MARK: usize = 12;
const NOTE_BYTES_MIN: usize = 80;
/// Room for that, with `10:00-11:30` in front.
const NOTE_MIN: usize = NOTE_BYTES_MIN + NOTE_MARK + LINE + 11;
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

/// A synthesis, or what has room of it.
#[derive(Serialize)]
struct NoteLine {
    time: String,
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
    let (notes_today, today, left) = of_today(recent, room(0), view);
    // What a day does not need is there for the summaries of the days before it.
    let past =
        |syntheses: &[Synthesis], lines: &dyn Fn(usize) -> Vec<EventLine>, share: usize, left: usize| {
            let room = if syntheses.is_empty() { share } else { share * BESIDE_SUMMARY / 100 };
            let lines = lines(room);
            let rest = (share + left).saturating_sub(lines.iter().map(cost).sum::<usize>());
            (lines, rest)
        };
    let events_of = |events: &[Event], form: &'static str, room| {
        lines(events, room, PAST_EVENTS_MAX, most_important, form, view)
    };
    let of_yesterday = |room| events_of(&recent.yesterday, "%H:%M", room);
    let (yesterday, rest) = past(&recent.of_yesterday, &of_yesterday, room(1), left);
    let (notes_yesterday, left) = notes(&recent.of_yesterday, rest, &|note| hours(note, view.zone));
    let of_earlier = |room| events_of(&recent.earlier, "%a %H:%M", room);
    let (earlier, rest) = past(&recent.of_earlier, &of_earlier, room(2), left);
    let (notes_earlier, _) = notes(&recent.of_earlier, rest, &|note| view.zone.format(note.to, "%a"));
    let context = serde_json::json!({
        "zone": view.zone.name(),
        "today": today,
        "yesterday": yesterday,
        "earlier": earlier,
        "notes_today": notes_today,
        "notes_yesterday": notes_yesterday,
        "notes_earlier": notes_earlier,
        "others": other_lines(others, view),
    });
    let text = prompts::render(Template::Recent, &context)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// What a model is to put together: the notes of a day that there are, and what is in none of them.
///
/// # Errors
/// The template does not render; the tests would have shown it.
pub fn words(batch: &Batch, zone: &Zone) -> Result<String, PromptError> {
    let note = |note: &Synthesis| NoteLine { time: hours(note, zone), text: note.text.clone() };
    let event = |event: &Event| event_line(event, "%H:%M", zone, None, TEXT_BYTES_MAX);
    let context = serde_json::json!({
        "day": zone.format(batch.to, "%A, %Y-%m-%d"),
        "zone": zone.name(),
        "paragraphs": batch.paragraphs.iter().map(note).collect::<Vec<_>>(),
        "events": batch.events.iter().map(event).collect::<Vec<_>>(),
    });
    prompts::render(Template::Happened, &context)
}

/// The newest paragraph, then events, then older paragraphs, as far as there is room; and what is left.
fn of_today(recent: &Recent, room: usize, view: &View<'_>) -> (Vec<NoteLine>, Vec<EventLine>, usize) {
    let time = |note: &Synthesis| hours(note, view.zone);
    let (older, newest_note) = recent.of_today.split_at(recent.of_today.len().saturating_sub(1));
    let share = room * NEWEST_PARAGRAPH / 100;
    let (newest_note, unused) = notes(newest_note, share, &time);
    let room = room - (share - unused);
    let most = view.config.today_max_events;
    let events = lines(&recent.today, room, most, newest, "%H:%M", view);
    let room = room.saturating_sub(events.iter().map(cost).sum::<usize>());
    // Only what fits whole: half a paragraph in front of another misleads.
    let (mut left, mut shown) = (room, Vec::new());
    for note in older.iter().rev() {
        let line = NoteLine { time: time(note), text: note.text.clone() };
        let Some(rest) = left.checked_sub(note_cost(&line)) else { break };
        left = rest;
        shown.push(line);
    }
    shown.reverse();
    shown.extend(newest_note);
    (shown, events, left)
}

/// The newest that have room, each with its share of it; what is too long for that is cut off. And what is
/// left.
fn notes(
    syntheses: &[Synthesis],
    room: usize,
    time: &dyn Fn(&Synthesis) -> String,
) -> (Vec<NoteLine>, usize) {
    let count = syntheses.len().min(room / NOTE_MIN).max(1);
    let (mut left, mut shown) = (room, Vec::new());
    for (number, note) in syntheses.iter().rev().take(count).enumerate() {
        let mut line = NoteLine { time: time(note), text: String::new() };
        let share = (left / (count - number)).saturating_sub(note_cost(&line));
        if share < NOTE_BYTES_MIN.min(note.text.len()) {
            break;
        }
        line.text = single_line(&note.text, share);
        left = left.saturating_sub(note_cost(&line));
        shown.push(line);
    }
    shown.reverse();
    (shown, left)
}

fn note_cost(line: &NoteLine) -> usize {
    line.time.chars().count() + line.text.chars().count() + NOTE_MARK + LINE
}

fn hours(note: &Synthesis, zone: &Zone) -> String {
    format!("{}-{}", zone.format(note.from, "%H:%M"), zone.format(note.to, "%H:%M"))
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
    event_line(event, form, view.zone, Some(view.here), EVENT_BYTES)
}

fn event_line(
    event: &Event,
    form: &str,
    zone: &Zone,
    here: Option<&ConversationId>,
    bytes: usize,
) -> EventLine {
    EventLine {
        time: zone.format(event.created_at, form),
        kind: event.kind.as_str(),
        place: event.conversation.as_ref().map(place).unwrap_or_default(),
        here: here.is_some() && event.conversation.as_ref() == here,
        direct: event.direct,
        text: single_line(&event.text, bytes),
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
