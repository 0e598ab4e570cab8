//! Who takes part in a conversation in company, for the end of a channel's prompt.

use super::super::AgentParts;
use super::super::job::Job;
use crate::clock::Timestamp;
use crate::conversation::Participant;
use crate::error::Fault;
use crate::event::Received;
use crate::prompts::{self, Template};
use crate::text;

/// People that are listed, those who spoke last.
const PEOPLE_MAX: usize = 5;
/// Longest name, in bytes; five such lines stay far below 400 tokens.
const NAME_BYTES: usize = 60;

/// None in a conversation with one person, and where nobody is known.
pub(super) fn text(parts: &AgentParts, job: &Job, messages: &[Received]) -> Option<String> {
    if job.place.direct {
        return None;
    }
    // A prompt without it is better than no answer.
    read(parts, job, messages)
        .inspect_err(|error| log::warn!("a prompt goes without the people of its conversation: {error}"))
        .unwrap_or_default()
}

fn read(parts: &AgentParts, job: &Job, messages: &[Received]) -> Result<Option<String>, Box<dyn Fault>> {
    let conversations = &parts.conversations;
    let stored = conversations
        .participants(&job.place.conversation, PEOPLE_MAX)
        .map_err(|error| Box::new(error) as Box<dyn Fault>)?;
    let people = together(stored, messages);
    if people.is_empty() {
        return Ok(None);
    }
    let now = conversations.now();
    render(&people, now).map(Some)
}

/// Those of the history and those who have just written, the latest first.
fn together(stored: Vec<Participant>, messages: &[Received]) -> Vec<Participant> {
    let new = messages.iter().rev().map(|Received { message, .. }| Participant {
        id: message.sender_id.clone(),
        name: message.sender_name.clone(),
        last: message.sent_at,
    });
    let mut people: Vec<Participant> = Vec::new();
    for person in new.chain(stored) {
        if !people.iter().any(|known| known.id == person.id) {
            people.push(person);
        }
    }
    people.truncate(PEOPLE_MAX);
    people
}

fn render(people: &[Participant], now: Timestamp) -> Result<String, Box<dyn Fault>> {
    let line = |person: &Participant| {
        let minutes = now.since(person.last).as_secs() / 60;
        serde_json::json!({ "name": text::one_line(&person.name, NAME_BYTES), "minutes": minutes })
    };
    let context = serde_json::json!({ "people": people.iter().map(line).collect::<Vec<_>>() });
    prompts::render(Template::People, &context).map_err(|error| Box::new(error) as Box<dyn Fault>)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_list_stays_within_its_tokens() {
        let person = |number: usize| Participant {
            id: number.to_string(),
            name: format!("{number}{}", "x".repeat(500)),
            last: Timestamp(0),
        };
        let people: Vec<_> = (0..PEOPLE_MAX).map(person).collect();
        let text = render(&people, Timestamp(i64::MAX)).expect("renders");
        assert_eq!(text.lines().count(), PEOPLE_MAX + 1, "{text}");
        // The cautious estimate: three tokens for four characters.
        assert!(text.chars().count() * 3 / 4 <= 400, "{text}");
    }
}
