//! Memories that are taken from a conversation while it goes on: the whole binary, with a double for the
//! model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use daemon::{Client, DEADLINE, Daemon, Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{At, Double, Request, Say};
use serde_json::{Value, json};
use spacebot::db::Db;

fn home(double: &Double, persistence: &str) -> Home {
    Home::new(&format!("{}[defaults.memory_persistence]\n{persistence}\n", config(double, "")))
}

fn read(home: &Home, sql: &str) -> Vec<String> {
    let db = Db::open_inline(&home.database(), None).unwrap();
    let rows = db.read(|connection| {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    });
    rows.unwrap()
}

fn memories(home: &Home) -> Vec<String> {
    read(home, "SELECT content FROM memories ORDER BY created_at, content")
}

fn remembers(request: &Request) -> bool {
    offers(request, "memory_persistence_complete")
}

/// Ids that this run was given.
fn saved(request: &Request) -> Vec<String> {
    let results = messages(request).into_iter().filter(|message| message["role"] == "tool");
    let texts = results.filter_map(|message| message["content"].as_str().map(str::to_owned));
    let values = texts.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    values.filter_map(|value| value["saved"].as_str().map(str::to_owned)).collect()
}

fn end(ids: &[String]) -> Say {
    let outcome = if ids.is_empty() { "no_memories" } else { "saved" };
    let arguments = json!({ "outcome": outcome, "saved_memory_ids": ids, "reason": "that was all" });
    calls(&[("memory_persistence_complete", arguments)])
}

/// Saves one memory for what was said, and ends as it should.
fn keep(request: &Request) -> Say {
    let ids = saved(request);
    if !ids.is_empty() {
        return end(&ids);
    }
    let words = request.json["messages"].to_string();
    let said: Vec<&str> =
        words.split("fact ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    let facts: Vec<String> =
        said.iter().map(|fact| fact.chars().filter(char::is_ascii_digit).collect()).collect();
    let all: Vec<(&str, Value)> =
        facts.iter().map(|fact| ("memory_save", json!({ "content": format!("fact {fact}") }))).collect();
    if all.is_empty() { end(&[]) } else { calls(&all) }
}

fn reply() -> Say {
    calls(&[("reply", json!({ "content": "yes" }))])
}

/// Waits until nothing runs beside the turns.
fn rest(daemon: &Daemon<'_>) {
    eventually("it comes to rest", DEADLINE, || {
        daemon.status()["processes"].as_array().is_some_and(Vec::is_empty)
    });
}

fn say(client: &mut Client, facts: std::ops::Range<usize>) {
    for fact in facts {
        client.ask(&format!("m{fact}"), &format!("remember fact {fact} please"));
    }
}

fn runs(double: &Double) -> usize {
    double.requests().iter().filter(|request| remembers(request) && saved(request).is_empty()).count()
}

#[test]
fn so_many_messages_lead_to_memories_once_and_nobody_hears_of_it() {
    let double = Double::recording(|request| if remembers(request) { keep(request) } else { reply() });
    let home = home(&double, "message_threshold = 4");
    let daemon = home.start();
    let mut client = daemon.client("c");
    say(&mut client, 0..3);
    rest(&daemon);
    assert_eq!(runs(&double), 0, "below the threshold");
    say(&mut client, 3..4);
    eventually("memories are there", DEADLINE, || memories(&home).len() == 4);
    rest(&daemon);
    assert_eq!(memories(&home), ["fact 0", "fact 1", "fact 2", "fact 3"]);
    assert_eq!(runs(&double), 1);
    say(&mut client, 4..6);
    rest(&daemon);
    assert_eq!((runs(&double), client.said.len()), (1, 6), "what was kept counts no more; all is silent");
    say(&mut client, 6..8);
    eventually("the next ones", DEADLINE, || memories(&home).len() == 8);
    let second = double.requests().into_iter().rfind(remembers).unwrap();
    let words = second.json.to_string();
    assert!(words.contains("fact 7") && !words.contains("fact 3"), "only what is new: {words}");
    rest(&daemon);
    let before = double.requests().len();
    drop(daemon);
    let daemon = home.start();
    rest(&daemon);
    assert_eq!(double.requests().len(), before, "nothing runs without a new message");
    let events = "SELECT text FROM working_memory_events WHERE kind = 'memory_saved'";
    assert_eq!(read(&home, events).len(), 8);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn a_quiet_conversation_is_remembered_after_a_while_also_across_a_restart() {
    let double = Double::recording(|request| if remembers(request) { keep(request) } else { reply() });
    let home = home(&double, "time_threshold_secs = 3");
    let daemon = home.start();
    say(&mut daemon.client("c"), 0..1);
    eventually("its memory is there", DEADLINE, || memories(&home) == ["fact 0"]);
    say(&mut daemon.client("c"), 1..2);
    daemon.kill();
    let daemon = home.start();
    eventually("the other is there too", DEADLINE, || memories(&home) == ["fact 0", "fact 1"]);
    rest(&daemon);
    assert_eq!(runs(&double), 2);
    drop(daemon);
}

#[test]
fn what_does_not_end_as_it_should_is_reminded_and_keeps_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let double = Double::recording(move |request| {
        if !remembers(request) {
            return reply();
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => keep(request),
            1 => end(&["not-an-id".to_owned()]),
            _ => Say::text("I have kept it all."),
        }
    });
    let home = home(&double, "message_threshold = 2");
    let daemon = home.start();
    say(&mut daemon.client("c"), 0..2);
    // The save, the wrong end, and three texts of which two are answered with a reminder.
    eventually("it is given up", DEADLINE, || asked.load(Ordering::SeqCst) >= 5);
    rest(&daemon);
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    assert_eq!(memories(&home), Vec::<String>::new(), "nothing is kept without the end");
    let last = double.requests().into_iter().rfind(remembers).unwrap().json.to_string();
    assert!(last.contains("were not saved here"), "{last}");
    assert_eq!(last.matches("Do not answer with text. Save what").count(), 2);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("did not say what it saved"), "{log}");
}

#[test]
fn a_kill_at_any_moment_neither_doubles_nor_loses_a_memory() {
    // Behind so many answers of the run the model hangs and the daemon is killed.
    for answers in 0..3 {
        let (hang, given) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (hangs, counted) = (hang.clone(), given.clone());
        let double = Double::recording(move |request| {
            if !remembers(request) {
                return reply();
            }
            if hangs.load(Ordering::SeqCst) && counted.fetch_add(1, Ordering::SeqCst) >= answers {
                return Say::text("").hang(At::Headers);
            }
            keep(request)
        });
        let home = home(&double, "message_threshold = 2\ntime_threshold_secs = 1");
        let daemon = home.start();
        say(&mut daemon.client("c"), 0..2);
        if answers < 2 {
            double.wait_until_hanging(1, DEADLINE);
        } else {
            double.wait_for_requests(4, DEADLINE); // two turns, and both steps of the run: it is ending now
        }
        daemon.kill();
        hang.store(false, Ordering::SeqCst);
        let daemon = home.start();
        eventually("the memories are there", DEADLINE, || memories(&home).len() >= 2);
        rest(&daemon);
        assert_eq!(memories(&home), ["fact 0", "fact 1"], "killed behind {answers}");
        drop(daemon);
    }
}

#[test]
fn what_is_taken_back_is_forgotten_with_the_end_of_the_run() {
    let double = Double::recording(|request| {
        if !remembers(request) {
            return reply();
        }
        let words = request.json["messages"].to_string();
        let known =
            words.split("\\\"id\\\":\\\"").nth(1).map(|rest| rest.split('\\').next().unwrap().to_owned());
        match known {
            _ if !words.contains("fact zero is void") => keep(request),
            _ if last_message(request).contains("forgotten\\\":true") => end(&[]),
            Some(id) => calls(&[("memory_delete", json!({ "memory_id": id, "reason": "taken back" }))]),
            None => calls(&[("memory_recall", json!({ "query": "fact 0" }))]),
        }
    });
    let home = home(&double, "message_threshold = 1");
    let daemon = home.start();
    let mut client = daemon.client("c");
    say(&mut client, 0..1);
    eventually("it is kept", DEADLINE, || memories(&home) == ["fact 0"]);
    rest(&daemon);
    client.ask("x", "fact zero is void");
    eventually("it is forgotten", DEADLINE, || {
        read(&home, "SELECT content FROM memories WHERE forgotten = 1") == ["fact 0"]
    });
    drop(daemon);
}

#[test]
fn without_a_model_or_switched_off_nothing_runs() {
    let double = Double::recording(|request| if remembers(request) { keep(request) } else { reply() });
    let off = home(&double, "enabled = false\nmessage_threshold = 1");
    let daemon = off.start();
    say(&mut daemon.client("c"), 0..2);
    rest(&daemon);
    assert_eq!(runs(&double), 0);
    drop(daemon);
    let offline = Home::new("[defaults.memory_persistence]\nmessage_threshold = 1\n");
    let daemon = offline.start();
    daemon.client("c").ask("1", "good morning");
    rest(&daemon);
    assert_eq!(memories(&offline), Vec::<String>::new());
    assert_eq!(read(&offline, "SELECT channel_id FROM memory_persistence"), Vec::<String>::new());
    drop(daemon);
}
