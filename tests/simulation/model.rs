//! The model: what it answers to a request, and what happens meanwhile.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;

use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::{ToolResultContent, UserContent};
use serde_json::json;
use spacebot::turn::{self, Part};

use crate::local_model::Say;
use crate::random::Random;

/// What the simulated model does for a request, from a random number.
pub fn decide(request: &CompletionRequest, random: &mut Random, calm: bool) -> Result<Vec<Say>, String> {
    let call = |tool: &str, arguments: serde_json::Value| {
        Say::Call("c1".to_owned(), tool.to_owned(), arguments.to_string())
    };
    let has = |tool: &str| request.tools.iter().any(|definition| definition.name.as_str() == tool);
    let (text, after_tools) = last_words(request);
    let roll = if calm { 99 } else { random.below(100) };
    match roll {
        0..=3 => return Err("the simulated provider failed".to_owned()),
        4 => return Ok(vec![call("no_such_tool", json!({}))]),
        5 => return Ok(vec![Say::Call("c1".to_owned(), "reply".to_owned(), "{\"content\": ".to_owned())]),
        6 => panic!("simulated panic"),
        _ => {}
    }
    if has("reply") {
        let words = said(&text);
        if after_tools || words.is_empty() {
            return Ok(vec![call("reply", json!({ "content": "result" }))]);
        }
        let echo = call(
            "reply",
            json!({ "content": words.iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" ") }),
        );
        // A worker that runs here gets words of its own, some that are there only once.
        if let Some(worker) = running_worker(&text).filter(|_| !calm && random.chance(50)) {
            let mut says: Vec<Say> = (0..1 + random.below(2))
                .map(|_| {
                    let message = format!("more {}", random.next());
                    call("route", json!({ "worker_id": worker, "message": message }))
                })
                .collect();
            says.push(echo);
            return Ok(says);
        }
        return Ok(match random.below(if calm { 6 } else { 14 }) {
            6 => vec![call("branch", json!({ "description": format!("think {text}") })), echo],
            7 => {
                let task = format!("do {}", words.join(" "));
                let interactive = random.chance(70);
                vec![call("spawn_worker", json!({ "task": task, "interactive": interactive })), echo]
            }
            8 => vec![call("react", json!({ "emoji": "👍" })), echo],
            9 => vec![Say::Text(words.iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" "))],
            // The turn goes on, and may hear what comes meanwhile.
            10..=13 => vec![call("react", json!({ "emoji": "👀" }))],
            _ => vec![echo],
        });
    }
    if has("task_create") && !after_tools && random.chance(40) {
        return Ok(vec![call("task_create", json!({ "title": "a chore" }))]);
    }
    if has("memory_save") && !after_tools && random.chance(40) {
        // What it was given to read, also when it has been reminded since.
        let given = first_words(request);
        return Ok(vec![call("memory_save", json!({ "content": format!("note {given}") }))]);
    }
    // A silent run has to name what it saved; some forget that, and are reminded.
    if has("memory_persistence_complete") && (calm || random.chance(80)) {
        let (ids, reason) = (saved(request), "that was all");
        let outcome = if ids.is_empty() { "no_memories" } else { "saved" };
        let end = json!({ "outcome": outcome, "saved_memory_ids": ids, "reason": reason });
        return Ok(vec![call("memory_persistence_complete", end)]);
    }
    if has("set_status") && !after_tools && (calm || random.chance(80)) {
        return Ok(vec![call("set_status", json!({ "status": "done", "kind": "outcome" }))]);
    }
    Ok(vec![Say::Text("concluded".to_owned())])
}

pub fn last_words(request: &CompletionRequest) -> (String, bool) {
    let (mut text, mut after_tools) = (String::new(), false);
    for message in &request.chat_history {
        let Message::User { content } = message else { continue };
        for part in content {
            match part {
                UserContent::Text(words) => (text, after_tools) = (words.text.clone(), false),
                UserContent::ToolResult(_) => after_tools = true,
                _ => {}
            }
        }
    }
    (text, after_tools)
}

/// A worker of the status block.
fn running_worker(text: &str) -> Option<String> {
    let line = text.lines().rev().find(|line| line.starts_with("worker:"))?;
    line.split(' ').next().map(str::to_owned)
}

fn first_words(request: &CompletionRequest) -> String {
    let words = request.chat_history.iter().find_map(|message| {
        let Message::User { content } = message else { return None };
        content.iter().find_map(|part| match part {
            UserContent::Text(words) => Some(words.text.clone()),
            _ => None,
        })
    });
    words.unwrap_or_default()
}

/// The ids that the run was given for what it saved.
pub fn saved(request: &CompletionRequest) -> Vec<String> {
    let mut ids = Vec::new();
    for message in &request.chat_history {
        let Message::User { content } = message else { continue };
        for result in content {
            let UserContent::ToolResult(result) = result else { continue };
            for part in &result.content {
                let ToolResultContent::Text(text) = part else { continue };
                let value: serde_json::Value = serde_json::from_str(&text.text).unwrap_or_default();
                ids.extend(value["saved"].as_str().map(str::to_owned));
            }
        }
    }
    ids
}

pub fn said(text: &str) -> Vec<String> {
    let words = |part| match part {
        Part::Said { text, .. } => Some(text),
        _ => None,
    };
    turn::read(text).into_iter().filter_map(words).collect()
}

thread_local! {
    /// What happens in the world while a model thinks; a process runs on the thread of the test.
    pub static MEANWHILE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

pub fn meanwhile() {
    let happens = MEANWHILE.take();
    if let Some(mut happens) = happens {
        happens();
        MEANWHILE.set(Some(happens));
    }
}
