//! Channel, branch and worker with a real model wire: the double at the HTTP level decides what each
//! process does, the whole binary does it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use daemon::{Client, DEADLINE, Home, eventually};
use llm_double::script::{calls, last_message, messages, offers};
use llm_double::{Double, Request, Say, WireFormat};
use serde_json::json;

fn home(double: &Double, wire: WireFormat) -> Home {
    let (api, url) = match wire {
        WireFormat::OpenAi => ("openai_chat_completions", double.base_url("p", wire)),
        WireFormat::Anthropic => ("anthropic", double.base_url("p", wire)),
        WireFormat::Responses => ("openai_responses", double.base_url("p", wire)),
        WireFormat::Gemini => ("gemini", double.base_url("p", wire)),
    };
    Home::new(&format!(
        "[llm.provider.double]\napi_type = \"{api}\"\nbase_url = \"{url}\"\napi_key = \"k-double\"\n\
         [defaults.routing]\nchannel = \"double/m\"\nbranch = \"double/m\"\nworker = \"double/m\"\n"
    ))
}

/// The whole request as text; enough to see who asks and what came last.
fn text(request: &Request) -> String {
    request.json.to_string()
}

#[test]
fn a_worker_is_nudged_waits_and_takes_a_routed_message() {
    for wire in [WireFormat::OpenAi, WireFormat::Anthropic] {
        let double = Double::answering(|request| {
            let last = last_message(request);
            if offers(request, "spawn_worker") {
                return match () {
                    () if last.contains("begin the job") => calls(&[
                        ("spawn_worker", json!({ "task": "count the eggs", "interactive": true })),
                        ("reply", json!({ "content": "begun" })),
                    ]),
                    () if last.contains("twelve eggs") => {
                        calls(&[("reply", json!({ "content": "first: twelve eggs" }))])
                    }
                    () if last.contains("count again") => {
                        assert!(last.contains("waits for input"), "the status block knows: {last}");
                        let worker =
                            last.split("worker:").nth(1).unwrap().split(' ').next().unwrap().to_owned();
                        calls(&[
                            (
                                "route",
                                json!({ "worker_id": format!("worker:{worker}"), "message": "once more, please" }),
                            ),
                            ("reply", json!({ "content": "asked" })),
                        ])
                    }
                    () if last.contains("thirteen eggs") => {
                        calls(&[("reply", json!({ "content": "second: thirteen eggs" }))])
                    }
                    () => panic!("unexpected: {last}"),
                };
            }
            // The worker: says it without an outcome first, and is sent back.
            match () {
                () if last.contains("once more") => {
                    calls(&[("set_status", json!({ "status": "again", "kind": "outcome" }))])
                }
                () if last.contains("noted") && text(request).contains("once more") => {
                    Say::text("thirteen eggs")
                }
                () if last.contains("noted") => Say::text("twelve eggs"),
                () if last.contains("set_status with kind") => calls(&[
                    ("set_status", json!({ "status": "counted", "kind": "outcome" })),
                    ("no_such_tool", json!({})),
                ]),
                () if text(request).contains("no_such_tool") => Say::text("twelve eggs"),
                () => Say::text("I think there are twelve eggs"),
            }
        });
        let home = home(&double, wire);
        let daemon = home.start();
        let mut client = daemon.client("c");
        client.send("1", "begin the job");
        let started = Instant::now();
        while client.answers.get("1").is_none_or(|answers| answers.len() < 2) && started.elapsed() < DEADLINE
        {
            client.poll(5);
        }
        assert_eq!(client.answers["1"], ["begun", "first: twelve eggs"], "{wire:?}");
        client.send("2", "count again");
        let counted =
            |client: &Client| client.answers.values().flatten().any(|answer| answer.contains("thirteen"));
        let started = Instant::now();
        while !counted(&client) && started.elapsed() < DEADLINE {
            client.poll(5);
        }
        assert!(counted(&client), "{wire:?}: {:?} {}", client.answers, daemon.status());
        let (status, log) = daemon.stop();
        assert!(status.success() && !log.contains("k-double"), "{log}");
    }
}

#[test]
fn a_branch_remembers_and_its_conclusion_is_told() {
    let branches = Arc::new(AtomicUsize::new(0));
    let counted = branches.clone();
    let double = Double::answering(move |request| {
        let last = last_message(request);
        if offers(request, "memory_save") {
            counted.fetch_add(1, Ordering::SeqCst);
            return if last.contains("saved") {
                Say::text("kept the birthday")
            } else {
                assert!(
                    text(request).contains("my birthday is in May"),
                    "a branch is a fork of the conversation"
                );
                calls(&[("memory_save", json!({ "content": "The birthday is in May", "importance": "0.9" }))])
            };
        }
        if last.contains("kept the birthday") {
            return calls(&[("reply", json!({ "content": "I will remember it." }))]);
        }
        if last.contains("started") {
            return calls(&[("skip", json!({}))]);
        }
        calls(&[("branch", json!({ "description": "save the birthday" }))])
    });
    let home = home(&double, WireFormat::OpenAi);
    let daemon = home.start();
    let mut client = daemon.client("c");
    assert_eq!(client.ask("1", "my birthday is in May"), "I will remember it.");
    assert_eq!(branches.load(Ordering::SeqCst), 2);
    drop(daemon);
}

#[test]
fn the_prompt_prefix_is_the_same_bytes_in_every_turn() {
    let double = Double::recording(|_| calls(&[("reply", json!({ "content": "yes" }))]));
    let home = home(&double, WireFormat::OpenAi);
    let daemon = home.start();
    let mut client = daemon.client("c");
    for number in 0..5 {
        client.ask(&format!("{number}"), &format!("question {number}"));
    }
    drop(daemon);
    let requests = double.requests();
    assert_eq!(requests.len(), 5);
    let messages = |index: usize| requests[index].json["messages"].as_array().unwrap().clone();
    for turn in 1..requests.len() {
        let (before, now) = (messages(turn - 1), messages(turn));
        // Everything but the last message of the turn before, which held the clock and the status.
        assert_eq!(before[..before.len() - 1], now[..before.len() - 1], "turn {turn}");
        assert_eq!(requests[turn - 1].json["tools"], requests[turn].json["tools"], "turn {turn}");
    }
}

#[test]
fn a_model_that_is_gone_leaves_the_offline_responder() {
    let double = Double::answering(|_| Say::error(401, "invalid_api_key", "wrong key k-double"));
    let home = home(&double, WireFormat::OpenAi);
    let daemon = home.start();
    let mut client = daemon.client("c");
    assert!(client.ask("1", "what a day").contains("No language model answers me"));
    assert!(client.ask("2", "remember that the tea is green").contains("Noted"));
    let (_, log) = daemon.stop();
    assert!(!log.contains("k-double"), "{log}");
}

#[test]
fn what_a_branch_saves_after_it_read_what_others_wrote_says_so() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        if offers(request, "spawn_worker") {
            return match last.contains("<result") {
                false => calls(&[
                    (
                        "branch",
                        json!({ "description": if last.contains("survey") { "survey" } else { "think" } }),
                    ),
                    ("reply", json!({ "content": "begun" })),
                ]),
                true => calls(&[("reply", json!({ "content": "done" }))]),
            };
        }
        let asked = messages(request).iter().any(|message| message["content"].to_string().contains("survey"));
        let save = |content: &str| calls(&[("memory_save", json!({ "content": content, "source": "user" }))]);
        match (asked, request.json["messages"].to_string().matches("\"role\":\"tool\"").count()) {
            (true, 0) => calls(&[("worker_inspect", json!({}))]),
            (true, 1) => save("the door is blue"),
            (false, 0) => save("the door is red"),
            _ => Say::text("saved"),
        }
    });
    let home = home(&double, WireFormat::OpenAi);
    let daemon = home.start();
    for (id, words) in [("1", "think"), ("2", "survey")] {
        let mut client = daemon.client(id);
        client.send(id, words);
        eventually("the branch is told", DEADLINE, || {
            client.poll(1);
            client.answers.get(id).is_some_and(|answers| answers.len() > 1)
        });
    }
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let source = |content: &str| -> String {
        let sql = "SELECT source FROM memories WHERE content = ?1";
        connection.query_row(sql, [content], |row| row.get(0)).unwrap()
    };
    assert!(source("the door is red").starts_with("agent:branch:"), "{}", source("the door is red"));
    assert!(source("the door is blue").starts_with("tool:branch:"), "{}", source("the door is blue"));
    let (status, _) = daemon.stop();
    assert!(status.success());
}
