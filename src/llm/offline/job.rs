//! The responder in a job that has come due: a reminder is said, a command is run, a question is looked
//! up, and of anything else the person at least hears that it is time.

use serde_json::json;

use super::answer::{Answer, Call};
use super::order;
use super::phrases::{Does, Table, fill};
use super::request::Request;
use crate::text::shorten;
use crate::turn::{self, Part};

/// Longest outcome, in bytes; below what the tool takes.
const MAX_OUTCOME_BYTES: usize = 15_000;

pub(super) fn answer(table: &Table, request: &Request<'_>) -> Answer {
    let episode = request.newest();
    if let Some(step) = episode.own().next() {
        // Whatever was begun, its result comes as a turn of its own; what was refused is told.
        return match step.failure(&table.words.refusals) {
            Some(reason) if step.name != "set_outcome" => {
                outcome(table, request, &fill(&table.job.failed, &[("reason", &reason)]))
            }
            _ => Answer::Text(table.channel.done_reason.clone()),
        };
    }
    let parts = turn::read(&episode.prompt);
    let results: Vec<_> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Result { text, .. } => Some(text.trim()),
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .collect();
    if !results.is_empty() {
        return outcome(table, request, &results.join("\n\n"));
    }
    let prompt = parts.iter().find_map(|part| match part {
        Part::Said { text, .. } => Some(text.trim()),
        _ => None,
    });
    begin(table, request, prompt.unwrap_or_default())
}

fn begin(table: &Table, request: &Request<'_>, prompt: &str) -> Answer {
    if let Some(what) = order::read(order::REMIND, prompt) {
        return outcome(table, request, &fill(&table.job.reminder, &[("what", what)]));
    }
    let heard = table.hear(prompt);
    let what = heard.as_ref().map_or(prompt, |heard| heard.caught.text);
    let branch = |verb| Call::of(request, "branch", json!({ "description": order::write(verb, what) }));
    let call = match heard.as_ref().map(|heard| heard.intent.does) {
        Some(Does::Run) => {
            let task = order::write(order::RUN, what);
            Call::of(request, "spawn_worker", json!({ "task": task, "interactive": false }))
        }
        Some(Does::Recall) => branch(order::RECALL),
        Some(Does::List) => {
            let description = order::write(order::RECALL, order::EVERYTHING);
            Call::of(request, "branch", json!({ "description": description }))
        }
        _ => None,
    };
    match call {
        Some(call) => Answer::Calls(vec![call]),
        None => outcome(table, request, &fill(&table.job.offline, &[("what", prompt)])),
    }
}

fn outcome(table: &Table, request: &Request<'_>, content: &str) -> Answer {
    let content = shorten(content, MAX_OUTCOME_BYTES);
    match Call::of(request, "set_outcome", json!({ "content": content })) {
        Some(call) => Answer::Calls(vec![call]),
        None => Answer::Text(table.other.no_tools.clone()),
    }
}
