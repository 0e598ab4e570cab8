//! Processes that repeat themselves, in the whole binary, with a model that does what the test wants.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::{Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{Answer, Body, Double, Say, ToolCall};
use serde_json::json;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn home(double: &Double, more: &str) -> Home {
    Home::new(&format!("{}{more}", config(double, "")))
}

fn why(home: &Home, id: &str) -> String {
    String::from_utf8(home.command(&["why", id]).output().unwrap().stdout).unwrap()
}

#[test]
fn a_worker_that_repeats_a_call_is_warned_refused_and_ended_and_the_person_hears_of_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let double = Double::answering(move |request| {
        let last = last_message(request);
        if offers(request, "spawn_worker") {
            return match last.contains("<result") {
                false => calls(&[
                    ("spawn_worker", json!({ "task": "count the eggs" })),
                    ("reply", json!({ "content": "begun" })),
                ]),
                true => {
                    assert!(last.contains("kept repeating the same step"), "{last}");
                    assert!(last.contains("I look once more"), "what it had last: {last}");
                    calls(&[("reply", json!({ "content": "It turned in circles and was stopped." }))])
                }
            };
        }
        let heard = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => "count the eggs",
            1 | 2 => "entries",
            3 => "keeps giving the same result",
            4 => "made this very call several times",
            _ => "not made",
        };
        assert!(last.contains(heard), "{heard:?} is not in {last}");
        let structured = last.contains("\\\"error\\\":\\\"repeated\\\"");
        assert_eq!(structured, heard == "not made", "a refused call is a structured error: {last}");
        let look =
            ToolCall { id: "call_0".to_owned(), name: "file_list".to_owned(), arguments: "{}".to_owned() };
        Say::new(Body::Answer(Answer {
            text: "I look once more".to_owned(),
            calls: vec![look],
            ..Answer::default()
        }))
    });
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "begin the job");
    eventually("the end of the worker is told", PATIENCE, || {
        client.poll(1);
        client.answers.get("1").is_some_and(|answers| answers.len() > 1)
    });
    assert_eq!(client.answers["1"], ["begun", "It turned in circles and was stopped."]);
    assert_eq!(asked.load(Ordering::SeqCst), 7, "four calls, two refused, the third ends it");
    let why = why(&home, "1");
    for (verdict, count) in
        [("warned (same_result)", 1), ("warned (same_call)", 1), ("refused (same_result)", 2)]
    {
        assert_eq!(why.matches(&format!("file_list: {verdict}")).count(), count, "{verdict} in\n{why}");
    }
    assert!(why.contains("file_list: stopped (same_result)") && why.contains("ended: partial"), "{why}");
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn a_worker_that_waits_for_something_is_left_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let double = Double::answering(move |request| {
        let last = last_message(request);
        if offers(request, "spawn_worker") {
            return match last.contains("<result") {
                false => calls(&[
                    ("spawn_worker", json!({ "task": "wait for the eggs" })),
                    ("reply", json!({ "content": "begun" })),
                ]),
                true => {
                    assert!(last.contains("hatched"), "{last}");
                    calls(&[("reply", json!({ "content": "They have hatched." }))])
                }
            };
        }
        assert!(!last.contains("Notice:") && !last.contains("not made"), "{last}");
        match counted.fetch_add(1, Ordering::SeqCst) {
            0..8 => calls(&[("shell", json!({ "command": "echo status: not yet" }))]),
            8 => calls(&[("set_status", json!({ "status": "done", "kind": "outcome" }))]),
            _ => Say::text("hatched"),
        }
    });
    let home = home(&double, "[defaults.sandbox]\nmode = \"disabled\"\n");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "wait");
    eventually("the worker is done", PATIENCE, || {
        client.poll(1);
        client.answers.get("1").is_some_and(|answers| answers.len() > 1)
    });
    assert_eq!(client.answers["1"], ["begun", "They have hatched."]);
    assert_eq!(asked.load(Ordering::SeqCst), 10);
    drop(daemon);
}

#[test]
fn a_turn_that_repeats_itself_ends_with_a_plain_sentence() {
    let look = || ("no_such_tool", json!({ "again": true }));
    let double = Double::answering(move |request| {
        let words = request.json.to_string();
        let many: Vec<_> = (0..if words.contains("all at once") { 9 } else { 2 }).map(|_| look()).collect();
        calls(&many)
    });
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    let answer = client.ask("1", "do it");
    assert!(answer.starts_with("I kept repeating the same step"), "{answer}");
    let said = why(&home, "1");
    assert!(said.contains("3 model calls") && said.contains("no_such_tool: stopped"), "{said}");
    let answer = client.ask("2", "do it all at once");
    assert!(answer.starts_with("I kept repeating the same step"), "{answer}");
    let said = why(&home, "2");
    assert!(said.contains("1 model calls"), "{said}");
    let (status, _) = daemon.stop();
    assert!(status.success());
}
