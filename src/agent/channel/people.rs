//! Who takes part in a conversation in company, for the end of a channel's prompt: what the operator has
//! written about them, and what they have lately asked for.

use serde::Serialize;

use super::super::AgentParts;
use super::super::company::profile;
use super::super::job::Job;
use crate::clock::Timestamp;
use crate::config::{HumanConfig, MemoryMode, ParticipantContextConfig};
use crate::conversation::Participant;
use crate::error::Fault;
use crate::event::Received;
use crate::id::ConversationId;
use crate::prompts::{self, Template};
use crate::text;
use crate::working_memory::Event;

/// Events of one person.
const EVENTS_MAX: usize = 3;
/// Longest name, role, profile, event and place of one, in bytes. Names and roles of all people always have room.
const NAME_BYTES: usize = 60;
const ROLE_BYTES: usize = 60;
const PROFILE_BYTES: usize = 160;
const EVENT_BYTES: usize = 120;
const PLACE_BYTES: usize = 40;
/// Of a token. Bytes, because scripts with more of them take more tokens.
const TOKEN_BYTES: usize = 4;
/// What the template writes in front of the list, and around each line of it.
const HEADING_BYTES: usize = 160;
const LINE_BYTES: usize = 40;

/// None in a conversation with one person, and where nobody is known.
pub(super) fn text(
    parts: &AgentParts,
    job: &Job,
    memory_mode: MemoryMode,
    messages: &[Received],
) -> Option<String> {
    if job.place.direct || !parts.config.participants.enabled {
        return None;
    }
    // A prompt without it is better than no answer.
    read(parts, job, memory_mode, messages)
        .inspect_err(|error| log::warn!("a prompt goes without the people of its conversation: {error}"))
        .unwrap_or_default()
}

fn read(
    parts: &AgentParts,
    job: &Job,
    memory_mode: MemoryMode,
    messages: &[Received],
) -> Result<Option<String>, Box<dyn Fault>> {
    let boxed = |error| Box::new(error) as Box<dyn Fault>;
    let conversations = &parts.conversations;
    let ParticipantContextConfig { least, most, tokens, .. } = parts.config.participants;
    let bytes = tokens * TOKEN_BYTES;
    // Some of them are one person under two names.
    let stored = conversations.participants(&job.place.conversation, 2 * most).map_err(boxed)?;
    let mut people = together(stored, messages, |sender| {
        parts.config.humans.iter().find(|human| human.is(&job.place.instance, sender))
    });
    people.truncate(most);
    if people.len() < least {
        return Ok(None);
    }
    if parts.config.working_memory.enabled && memory_mode.reads() {
        let instance = &job.place.instance;
        let names = |person: &Person<'_>| match person.human {
            Some(human) => human.platform_ids.clone(),
            None => vec![format!("{instance}:{}", person.sender.id)],
        };
        let names: Vec<_> = people.iter().map(names).collect();
        let events = parts.working_memory().of_people(&names, EVENTS_MAX).map_err(boxed)?;
        people.iter_mut().zip(events).for_each(|(person, events)| person.events = events);
    }
    people.truncate(with_room(bytes));
    render(&people, bytes, &job.place.conversation, conversations.now()).map(Some)
}

struct Person<'a> {
    sender: Participant,
    /// Whom the config knows.
    human: Option<&'a HumanConfig>,
    /// The latest first.
    events: Vec<Event>,
}

/// How many people always have room for their names and roles.
fn with_room(bytes: usize) -> usize {
    (bytes.saturating_sub(HEADING_BYTES) / (LINE_BYTES + NAME_BYTES + ROLE_BYTES)).max(1)
}

/// Those of the history and those who have just written, the latest first, each once.
fn together<'a>(
    stored: Vec<Participant>,
    messages: &[Received],
    known: impl Fn(&str) -> Option<&'a HumanConfig>,
) -> Vec<Person<'a>> {
    let new = messages.iter().rev().map(|Received { message, .. }| Participant {
        id: message.sender_id.clone(),
        name: message.sender_name.clone(),
        last: message.sent_at,
    });
    let mut people: Vec<Person<'a>> = Vec::new();
    for sender in new.chain(stored) {
        let human = known(&sender.id);
        let is_same = |person: &Person<'_>| match (person.human, human) {
            (Some(one), Some(other)) => one.id == other.id,
            _ => person.sender.id == sender.id,
        };
        if !people.iter().any(is_same) {
            people.push(Person { sender, human, events: Vec::new() });
        }
    }
    people
}

/// As the template reads it.
#[derive(Default, Serialize)]
struct Lines {
    name: String,
    minutes: u64,
    role: String,
    profile: String,
    events: Vec<EventLine>,
}

#[derive(Serialize)]
struct EventLine {
    minutes: u64,
    kind: &'static str,
    /// Empty: here.
    place: String,
    text: String,
}

/// Names and roles of all; of the rest what has room: first the latest event of each, then what the operator
/// says of each, then earlier events.
fn render(
    people: &[Person<'_>],
    bytes: usize,
    here: &ConversationId,
    now: Timestamp,
) -> Result<String, Box<dyn Fault>> {
    let minutes = |at: Timestamp| now.since(at).as_secs() / 60;
    let mut lines: Vec<Lines> = Vec::with_capacity(people.len());
    let mut left = bytes.saturating_sub(HEADING_BYTES);
    for Person { sender, human, .. } in people {
        let name = human.map_or(sender.name.as_str(), |human| human.name.as_str());
        // It may come from anywhere, and must not look like a name with a role.
        let name = text::one_line(&name.replace('|', "/"), NAME_BYTES);
        let role = human.map(|human| text::one_line(&human.role, ROLE_BYTES)).unwrap_or_default();
        left = left.saturating_sub(LINE_BYTES + name.len() + role.len());
        lines.push(Lines { name, minutes: minutes(sender.last), role, ..Lines::default() });
    }
    for round in 0..=EVENTS_MAX {
        for (person, lines) in people.iter().zip(&mut lines) {
            // The profile comes second.
            if round == 1 {
                let profile = person.human.map(profile).unwrap_or_default();
                let profile = text::one_line(&profile, PROFILE_BYTES);
                if !profile.is_empty() && takes(&mut left, profile.len()) {
                    lines.profile = profile;
                }
            } else if let Some(event) = person.events.get(round.saturating_sub(1)) {
                let elsewhere = event.conversation.as_ref().filter(|conversation| *conversation != here);
                let place = elsewhere.map_or("", |conversation| conversation.as_str());
                let line = EventLine {
                    minutes: minutes(event.created_at),
                    kind: event.kind.as_str(),
                    place: text::one_line(place, PLACE_BYTES),
                    text: text::one_line(&event.text, EVENT_BYTES),
                };
                if takes(&mut left, line.kind.len() + line.place.len() + line.text.len()) {
                    lines.events.push(line);
                }
            }
        }
    }
    let context = serde_json::json!({ "people": lines });
    prompts::render(Template::People, &context).map_err(|error| Box::new(error) as Box<dyn Fault>)
}

/// A line of so many bytes takes its room, if there is any.
fn takes(left: &mut usize, bytes: usize) -> bool {
    let after = left.checked_sub(bytes + LINE_BYTES);
    *left = after.unwrap_or(*left);
    after.is_some()
}

#[cfg(test)]
#[path = "people/tests.rs"]
mod tests;
