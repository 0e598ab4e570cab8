//! What reaches people through the whole binary: words, and neither tool calls written as text nor keys.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use daemon::{Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{Double, Say};
use serde_json::json;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
const KEY: &str = "sk-proj-abcDEF123456_78abcd";

#[test]
fn a_call_written_as_text_goes_back_to_the_model_and_never_to_the_person() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        match (last.contains("stubborn"), last.contains("This was not sent")) {
            (true, _) => Say::text(r#"{"name": "reply", "arguments": {"content": "hi"}}"#),
            (false, false) => Say::text(r#"reply({"content": "hi"})"#),
            // The correction stands behind the text that it is about.
            (false, true)
                if messages(request).iter().any(|message| message.to_string().contains("stubborn")) =>
            {
                Say::text("skip")
            }
            (false, true) => Say::text("Plain words."),
        }
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let mut client = daemon.client("c");
    assert_eq!(client.ask("1", "say hi"), "Plain words.");
    assert_eq!(double.requests().len(), 2);
    let mut other = daemon.client("d");
    let answer = other.ask("2", "be stubborn");
    assert!(answer.starts_with("I have an answer but could not put it into words"), "{answer}");
    assert_eq!(double.requests().len(), 2 + 3, "two corrections, then it is given up");
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn a_key_is_neither_told_nor_kept_in_a_result() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        if !offers(request, "spawn_worker") {
            return match last.contains("noted") {
                false => {
                    calls(&[("set_status", json!({ "status": format!("found {KEY}"), "kind": "outcome" }))])
                }
                true => Say::text(format!("The key is {KEY}, in notes.txt.")),
            };
        }
        match &last {
            last if last.contains("<result") => {
                assert!(last.contains("The key is [hidden], in notes.txt."), "{last}");
                calls(&[("reply", json!({ "content": format!("It is {KEY}.") }))])
            }
            last if last.contains("invalid_arguments") => {
                assert!(last.contains("looks like a key"), "{last}");
                calls(&[("reply", json!({ "content": "It stands in notes.txt." }))])
            }
            _ => calls(&[
                ("spawn_worker", json!({ "task": "find the key" })),
                ("reply", json!({ "content": "I look." })),
            ]),
        }
    });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "where is my key?");
    eventually("the result is told", PATIENCE, || {
        client.poll(1);
        client.answers.get("1").is_some_and(|answers| answers.len() > 1)
    });
    assert_eq!(client.answers["1"], ["I look.", "It stands in notes.txt."]);
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let stored: (String, String) = connection
        .query_row("SELECT result, outcome_summary FROM worker_runs", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(!stored.0.contains(KEY) && !stored.1.contains(KEY), "{stored:?}");
    let (status, _) = daemon.stop();
    assert!(status.success());
}
