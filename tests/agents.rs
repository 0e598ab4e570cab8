//! Two agents in one daemon: each has its own conversations, memories, workspace and limits, and nothing of
//! one reaches the other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use daemon::{DEADLINE, Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{Double, Request, Say};
use serde_json::json;
use spacebot::db::Db;

const AGENTS: &str = "[defaults.sandbox]\nmode = \"disabled\"\n\
    [[agents]]\nid = \"home\"\ndisplay_name = \"Hesper\"\ndefault = true\nmax_concurrent_workers = 1\n\
    [[agents]]\nid = \"shop\"\ndisplay_name = \"Sigrid\"\nmax_concurrent_workers = 2\n\
    [[bindings]]\nagent_id = \"shop\"\nchannel = \"webhook\"\nchannel_ids = [\"counter\"]\n\
    [[bindings]]\nagent_id = \"home\"\nchannel = \"webhook\"\nchannel_ids = [\"kitchen\"]\n";

fn words(request: &Request) -> String {
    request.json.to_string()
}

/// How many rows of a table of this agent hold the text.
fn rows(home: &Home, agent: &str, table: &str, column: &str, text: &str) -> i64 {
    let path = home.folder().join("agents").join(agent).join("data/spacebot.db");
    let sql = format!("SELECT count(*) FROM {table} WHERE instr({column}, ?1) > 0");
    let db = Db::open_inline(&path, None).unwrap();
    db.read(|connection| Ok(connection.query_row(&sql, [text], |row| row.get(0))?)).unwrap()
}

#[test]
fn what_one_agent_hears_remembers_and_writes_the_other_does_not_have() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        if offers(request, "memory_save") {
            return match last.contains("\"role\":\"tool\"") {
                true => Say::text("kept"),
                false => calls(&[("memory_save", json!({ "content": "The safe opens with 4711" }))]),
            };
        }
        if offers(request, "file_write") {
            return match last.contains("\"role\":\"tool\"") {
                true if last.contains("written") || last.contains("bytes") => {
                    calls(&[("set_status", json!({ "status": "noted down", "kind": "outcome" }))])
                }
                true => Say::text("noted down"),
                false => calls(&[("file_write", json!({ "path": "note.txt", "content": "4711" }))]),
            };
        }
        match () {
            () if last.contains("<result") => calls(&[("reply", json!({ "content": "it is kept" }))]),
            () if last.contains("started") => calls(&[("skip", json!({}))]),
            () if last.contains("remember") => calls(&[("branch", json!({ "description": "keep it" }))]),
            () if last.contains("write") => calls(&[("spawn_worker", json!({ "task": "write it down" }))]),
            () => calls(&[("reply", json!({ "content": "good day" }))]),
        }
    });
    let home = Home::new(&format!("{}{AGENTS}", config(&double, "")));
    let daemon = home.start();
    let (mut kitchen, mut counter) = (daemon.client("kitchen"), daemon.client("counter"));
    assert_eq!(kitchen.ask("1", "remember that the safe opens with 4711"), "it is kept");
    assert_eq!(kitchen.ask("2", "write it down"), "it is kept");
    assert_eq!(counter.ask("3", "what is new?"), "good day");
    drop(daemon);
    for (table, column) in [
        ("inbox", "content"),
        ("conversation_messages", "content"),
        ("memories", "content"),
        ("run_journal", "payload"),
    ] {
        assert!(rows(&home, "home", table, column, "4711") > 0, "{table} of the one that was told");
        assert_eq!(rows(&home, "shop", table, column, "4711"), 0, "{table} of the other");
    }
    let note = |agent: &str| home.folder().join("agents").join(agent).join("workspace/note.txt");
    assert!(note("home").exists() && !note("shop").exists());
    let asked = double.requests();
    let of_the_shop: Vec<&Request> =
        asked.iter().filter(|request| words(request).contains("Sigrid")).collect();
    assert_eq!(of_the_shop.len(), 1, "the message at the counter");
    for request in &asked {
        let text = words(request);
        assert!(!(text.contains("Sigrid") && (text.contains("4711") || text.contains("Hesper"))), "{text}");
    }
}

/// The workers of one agent take no place of the other's.
#[test]
fn each_agent_has_its_own_limits() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        if !offers(request, "spawn_worker") {
            return Say::text("never").hang(llm_double::At::Start);
        }
        match () {
            () if last.contains("limit") => calls(&[("reply", json!({ "content": "too many" }))]),
            () if last.contains("started") => calls(&[("reply", json!({ "content": "begun" }))]),
            () => {
                let task =
                    last.split("begin ").nth(1).unwrap_or_default().split('<').next().unwrap_or_default();
                calls(&[("spawn_worker", json!({ "task": task }))])
            }
        }
    });
    let home = Home::new(&format!("{}{AGENTS}", config(&double, "")));
    let daemon = home.start();
    let (mut kitchen, mut counter) = (daemon.client("kitchen"), daemon.client("counter"));
    assert_eq!(kitchen.ask("1", "begin a"), "begun");
    assert_eq!(kitchen.ask("2", "begin b"), "too many");
    for (id, text) in [("3", "begin a"), ("4", "begin c")] {
        assert_eq!(
            counter.ask(id, text),
            "begun",
            "{text}: neither the limit nor the task of the other counts"
        );
    }
    assert_eq!(counter.ask("5", "begin d"), "too many");
    eventually("three workers run", DEADLINE, || {
        daemon.status()["processes"].as_array().is_some_and(|processes| processes.len() == 3)
    });
    drop(daemon);
}

#[test]
fn an_agent_that_is_new_and_comes_first_shows_nobody_an_old_answer_again() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        calls(&[("reply", json!({ "content": if last.contains("second") { "two" } else { "one" } }))])
    });
    let known = "[[agents]]\nid = \"main\"\ndefault = true\n";
    let mut home = Home::new(&format!("{}{known}", config(&double, "")));
    let daemon = home.start();
    let mut client = daemon.client("c");
    assert_eq!(client.ask("1", "first"), "one");
    let (status, _) = daemon.stop();
    assert!(status.success());
    home.configure(&format!("{}[[agents]]\nid = \"alpha\"\n{known}", config(&double, "")));
    let daemon = home.start();
    client.send("2", "second");
    assert_eq!(client.answer("2"), "two");
    assert_eq!(client.said, ["one", "two"]);
    let (status, _) = daemon.stop();
    assert!(status.success());
}
