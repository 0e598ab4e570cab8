//! The model: what it answers to a request, and what happens meanwhile.

#![allow(unreachable_pub)] // one of the parts of one test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use rig_core::completion::{CompletionRequest, Message};
use rig_core::error::ProviderError;
use rig_core::message::{ToolResultContent, UserContent};
use serde_json::json;
use spacebot::clock::{Clock, SimulatedClock};
use spacebot::config::OFFLINE_MODEL;
use spacebot::event::Errand;
use spacebot::id::ProcessKind;
use spacebot::prompts;
use spacebot::turn::{self, Part};

use crate::accounts::Bill;
use crate::breaker::Said;
use crate::fault::Fault;
use crate::local_model::Say;
use crate::random::Random;
use crate::start::{Ground, main_agent, other_agent};
use crate::watch::{RUNNING, Running, Watch};

/// What is wrong with which models.
#[derive(Default)]
pub struct Models(Mutex<BTreeMap<String, Fault>>);

/// A model that is asked right now; who does not say what it says has broken off.
pub struct Asked {
    watch: Arc<Watch>,
    model: String,
    running: Option<Running>,
    bill: Option<Bill>,
    clock: Arc<SimulatedClock>,
}

impl Models {
    pub fn fault(&self, name: &str) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    pub fn set(&self, name: &str, fault: Option<Fault>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => all.insert(name.to_owned(), fault),
            None => all.remove(name),
        };
    }

    pub fn asked(&self, ground: &Ground, name: &str, request: &CompletionRequest) -> Asked {
        let now = ground.clock.monotonic();
        if let Some(running) = Running::now() {
            ground.watch.compacts(&running);
        }
        // What stands behind all models never rests.
        let running = Running::now().filter(|_| name != OFFLINE_MODEL);
        if let Some(running) = &running {
            ground.watch.asked(name, running, now);
        }
        if let Some(running) = Running::now().filter(|running| running.errand.is_some()) {
            let (words, _) = last_words(request);
            ground.watch.asked_for(&running, &words);
            RUNNING.with_borrow_mut(|running| {
                if let Some(running) = running {
                    running.asked = Some(words);
                }
            });
        }
        let bill = running.as_ref().filter(|_| ground.variant.budget);
        let bill = bill.and_then(|running| ground.accounts.asked(name, running, request));
        Asked {
            watch: ground.watch.clone(),
            model: name.to_owned(),
            running,
            bill,
            clock: ground.clock.clone(),
        }
    }
}

impl Asked {
    pub fn says(mut self, said: Result<Vec<Say>, Fault>) -> Result<Vec<Say>, ProviderError> {
        if let Some(running) = self.running.take() {
            let about = said.as_ref().map_or_else(|fault| fault.said(), |_| Said::Well);
            self.watch.told(&self.model, &running, about, self.clock.monotonic());
        }
        match self.bill.take() {
            Some(bill) => bill.answers(said),
            None => said,
        }
        .or_else(Fault::happens)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.watch.told(&self.model, &running, Said::Nothing, self.clock.monotonic());
        }
    }
}

/// What the simulated model does for a request, from a random number.
pub fn decide(request: &CompletionRequest, random: &mut Random, calm: bool) -> Result<Vec<Say>, Fault> {
    let call = |tool: &str, arguments: serde_json::Value| {
        Say::Call("c1".to_owned(), tool.to_owned(), arguments.to_string())
    };
    let has = |tool: &str| request.tools.iter().any(|definition| definition.name.as_str() == tool);
    let (text, after_tools) = last_words(request);
    let roll = if calm { 99 } else { random.below(100) };
    match roll {
        0..=3 => return Err(Fault::passing(random)),
        4 => return Ok(vec![call("no_such_tool", json!({}))]),
        5 => return Ok(vec![Say::Call("c1".to_owned(), "reply".to_owned(), "{\"content\": ".to_owned())]),
        6 => panic!("simulated panic"),
        _ => {}
    }
    if Running::now().is_some_and(|running| running.errand == Some(Errand::Profile)) {
        let profile = json!({ "display_name": "Sim", "status": "at sea", "bio": "It simulates." });
        return Ok(vec![Say::Text(profile.to_string())]);
    }
    if has("send_agent_message")
        && !after_tools
        && let Some(asks) = asks_other(&text, random)
    {
        let words = said(&text).iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" ");
        let words = if words.is_empty() { "result".to_owned() } else { words };
        return Ok(vec![call("send_agent_message", asks), call("reply", json!({ "content": words }))]);
    }
    if has("reply") {
        let words = said(&text);
        // A result leads to the next question, again and again.
        if words.is_empty() && !after_tools && !calm && random.chance(80) {
            let description = format!("think on {}", random.next());
            return Ok(vec![
                call("branch", json!({ "description": description })),
                call("reply", json!({ "content": "result" })),
            ]);
        }
        if after_tools || words.is_empty() {
            return Ok(vec![call("reply", json!({ "content": "result" }))]);
        }
        let echo = call(
            "reply",
            json!({ "content": words.iter().map(|word| format!("re:{word}")).collect::<Vec<_>>().join(" ") }),
        );
        // A worker that runs here gets words of its own, some that are there only once.
        if let Some(worker) = running_worker(&text).filter(|_| !calm && random.chance(80)) {
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

/// A question to the other agent, which says how many questions have led to it, as far as the turn tells: now and
/// then for what a person has said, and mostly again where the other has answered.
fn asks_other(text: &str, random: &mut Random) -> Option<serde_json::Value> {
    // A turn that has heard more goes on as what it was.
    if text.contains(prompts::notice("meanwhile")) {
        return None;
    }
    let parts = turn::read(text);
    let spoken = parts.iter().any(|part| matches!(part, Part::Said { .. }));
    let before = parts.iter().filter_map(|part| match part {
        Part::Result { process, task, .. } if process.kind == ProcessKind::Delegation => chain_of(task),
        _ => None,
    });
    let chain = match (spoken, before.max()) {
        (true, _) => 1,
        (false, Some(before)) => before + 1,
        (false, None) => return None,
    };
    if !random.chance(if spoken { 12 } else { 70 }) {
        return None;
    }
    let own = Running::now()?.agent;
    let target = if own == main_agent() { other_agent() } else { main_agent() };
    Some(json!({ "target": target.as_str(), "message": format!("chain {chain} number {}", random.next()) }))
}

/// The number in `chain 2 number 17`, whatever stands around it.
pub fn chain_of(message: &str) -> Option<u32> {
    message.split_once("chain ")?.1.split(' ').next()?.parse().ok()
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
