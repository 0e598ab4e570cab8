//! Branches and workers that are long, cut off, or wait: the whole binary, with a double for the model.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use daemon::{Client, DEADLINE, Daemon, Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{At, Double, Request, Say};
use serde_json::{Value, json};
use spacebot::agent::{self, Verdict};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::conversation::Conversations;
use spacebot::db::Db;
use spacebot::tools::speech::Speech;

/// What a channel says: it starts what the person asks for, and tells every result.
fn talk(request: &Request) -> Option<Say> {
    if !offers(request, "spawn_worker") {
        return None;
    }
    let last = last_message(request);
    let told = last.split("<result").nth(1).map(|rest| rest.split('>').nth(1).unwrap_or_default().to_owned());
    Some(match () {
        () if told.is_some() => calls(&[("reply", json!({ "content": format!("told: {}", told.unwrap()) }))]),
        () if last.contains("started") => calls(&[("reply", json!({ "content": "begun" }))]),
        () if last.contains(">branch please") => {
            calls(&[("branch", json!({ "description": "think it over" }))])
        }
        () if last.contains(">work with me") => {
            calls(&[("spawn_worker", json!({ "task": "the task", "interactive": true }))])
        }
        () if last.contains(">work") => calls(&[("spawn_worker", json!({ "task": "the task" }))]),
        () if last.contains(">route") => {
            let worker = last.split("worker:").nth(1).unwrap().split(' ').next().unwrap().to_owned();
            let route = json!({ "worker_id": format!("worker:{worker}"), "message": "and the second part" });
            calls(&[("route", route), ("reply", json!({ "content": "routed" }))])
        }
        () => calls(&[("reply", json!({ "content": "yes" }))]),
    })
}

fn done(request: &Request) -> Say {
    match last_message(request).contains("noted") {
        true => Say::text("all done"),
        false => calls(&[("set_status", json!({ "status": "finished", "kind": "outcome" }))]),
    }
}

fn home(double: &Double, defaults: &str) -> Home {
    Home::new(&config(double, defaults))
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

/// How often something was said that holds these words.
fn times(client: &Client, words: &str) -> usize {
    client.said.iter().filter(|said| said.contains(words)).count()
}

/// Each result of a tool stands behind the call that it answers, and each call has one.
fn assert_paired(request: &Request) {
    let mut open: Vec<String> = Vec::new();
    for message in messages(request) {
        if message["role"] == "tool" {
            let id = message["tool_call_id"].as_str().unwrap().to_owned();
            let at = open.iter().position(|call| *call == id);
            open.remove(at.unwrap_or_else(|| panic!("{id} answers no call: {}", request.json)));
        } else {
            assert!(open.is_empty(), "{open:?} have no result: {}", request.json);
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            open.push(call["id"].as_str().unwrap().to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} have no result: {}", request.json);
}

/// A tool has answered in this run.
fn has_result(request: &Request) -> bool {
    messages(request).iter().any(|message| message["role"] == "tool")
}

/// So many of the runs' steps are of this kind, and each run that has one comes to the same in a replay.
fn replayed(home: &Home, step: &str, verdict: fn(&Verdict) -> bool) -> usize {
    let db = Db::open_inline(&home.database(), None).unwrap();
    let conversations = Conversations::new(db, SystemClock::shared());
    let mut steps = 0;
    for (run, _) in conversations.runs_begun(Timestamp(i64::MIN), 1_000).unwrap() {
        let replayed = agent::replay(&conversations, &Speech::default(), run).unwrap();
        let of_kind = replayed.records.iter().filter(|record| record.step.as_str() == step).count();
        assert!(of_kind == 0 || verdict(&replayed.verdict), "{replayed:#?}");
        steps += of_kind;
    }
    steps
}

fn same(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Same { .. })
}

fn cut_off(verdict: &Verdict) -> bool {
    *verdict == Verdict::CutOff
}

fn first_user(request: &Request) -> String {
    messages(request)
        .iter()
        .find(|message| message["role"] == "user")
        .map(Value::to_string)
        .unwrap_or_default()
}

#[test]
fn a_worker_whose_window_fills_goes_on_with_a_recap() {
    const STEPS: usize = 12;
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = steps.clone();
    let double = Double::recording(move |request| {
        if let Some(said) = talk(request) {
            return said;
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            step if step < STEPS => {
                let command = format!("echo step{step}; head -c 3000 /dev/zero | tr '\\0' 'x'");
                calls(&[("shell", json!({ "command": command }))])
            }
            _ => done(request),
        }
    });
    let home = home(&double, "context_window = 8000\nworker_max_turns = 30");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "work");
    client.hear("told: all done");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let asked: Vec<Request> =
        double.requests().into_iter().filter(|request| offers(request, "set_status")).collect();
    assert!(asked.len() >= STEPS, "{}", asked.len());
    for request in &asked {
        assert_paired(request);
        assert!(first_user(request).contains("the task"), "the task stays: {}", first_user(request));
    }
    let longest = asked.iter().map(|request| request.json["messages"].to_string().len()).max().unwrap();
    assert!(longest < 30_000, "{longest} bytes in one request");
    let last = asked.last().unwrap().json.to_string();
    assert!(last.contains("have left this conversation"), "{last}");
    assert!(last.contains("- shell") && last.contains("echo step2"), "{last}");
    assert!(replayed(&home, "trim", same) > 0);
}

#[test]
fn a_request_that_is_too_long_is_made_shorter_twice_and_then_fails_plainly() {
    for (fits, told, tries) in [(14, "told: all done", 1), (0, "I could not work with that request", 3)] {
        let (refused, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (refusals, steps) = (refused.clone(), seen.clone());
        let double = Double::recording(move |request| {
            if let Some(said) = talk(request) {
                return said;
            }
            let step = steps.fetch_add(1, Ordering::SeqCst);
            if step >= 16 && messages(request).len() > fits + 1 {
                refusals.fetch_add(1, Ordering::SeqCst);
                return Say::error(400, "context_length_exceeded", "too many tokens");
            }
            if step < 16 {
                calls(&[("shell", json!({ "command": format!("echo {step}") }))])
            } else {
                done(request)
            }
        });
        let home = home(&double, "");
        let daemon = home.start();
        let mut client = daemon.client("c");
        client.send("1", "work");
        client.hear(told);
        drop(daemon);
        assert_eq!(refused.load(Ordering::SeqCst), tries);
        assert_eq!(replayed(&home, "trim", same), tries.min(2));
        double.requests().iter().for_each(assert_paired);
    }
}

#[test]
fn a_branch_from_a_long_conversation_begins_with_what_fits() {
    let double = Double::recording(|request| match talk(request) {
        Some(said) => said,
        None => Say::text("thought over"),
    });
    let home = home(&double, "context_window = 6000\nhistory_messages = 1000");
    let daemon = home.start();
    let mut client = daemon.client("c");
    for number in 0..7 {
        client.ask(&format!("m{number}"), &format!("{number} {}", "word ".repeat(480)));
    }
    client.send("b", "branch please");
    client.hear("told: thought over");
    drop(daemon);
    let requests = double.requests();
    let branch = requests.iter().find(|request| offers(request, "memory_save")).unwrap();
    let size = branch.json["messages"].to_string().len();
    assert!(size < 6000 * 4, "{size}");
    assert!(last_message(branch).contains("think it over"));
    assert!(replayed(&home, "trim", same) > 0);
}

/// Waits until the double has so many answers that never end.
fn hanging(double: &Double, count: usize) {
    double.wait_until_hanging(count, DEADLINE);
}

/// Waits until so many results of tools of branches and workers are on disk.
fn journalled(home: &Home, results: usize) {
    let sql = "SELECT payload FROM run_journal WHERE kind = 'tool'
               AND id / 65536 IN (SELECT id FROM branch_runs UNION SELECT id FROM worker_runs)";
    eventually("the journal is written", DEADLINE, || read(home, sql).len() >= results);
}

#[test]
fn a_worker_killed_while_its_model_thinks_goes_on_and_tells_its_result_once() {
    let (hang, steps) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (hangs, counted) = (hang.clone(), steps.clone());
    let double = Double::recording(move |request| {
        if let Some(said) = talk(request) {
            return said;
        }
        if !has_result(request) {
            counted.fetch_add(1, Ordering::SeqCst);
            return calls(&[("shell", json!({ "command": "echo once >> once.txt" }))]);
        }
        match hangs.load(Ordering::SeqCst) {
            true => Say::text("").hang(At::Headers),
            false => done(request),
        }
    });
    let home = home(&double, "");
    let daemon = home.start();
    daemon.client("c").ask("1", "work");
    hanging(&double, 1);
    journalled(&home, 1);
    daemon.kill();
    hang.store(false, Ordering::SeqCst);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("told: all done");
    assert_eq!(steps.load(Ordering::SeqCst), 1, "the first step is not done again");
    let file = home.folder().join("agents/main/workspace/once.txt");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "once\n");
    client.ask("2", "anything else?");
    assert_eq!(
        (times(&client, "told: all done"), times(&client, "Interrupted")),
        (1, 0),
        "{:?}",
        client.said
    );
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("go on"), "{log}");
    double.requests().iter().for_each(assert_paired);
    assert_eq!(read(&home, "SELECT status || continuations FROM worker_runs"), ["done1"]);
    assert_eq!(replayed(&home, "resume", same), 1);
}

#[test]
fn a_branch_killed_while_it_thinks_goes_on() {
    let hang = Arc::new(AtomicBool::new(true));
    let hangs = hang.clone();
    let double = Double::recording(move |request| {
        if let Some(said) = talk(request) {
            return said;
        }
        match () {
            () if !has_result(request) => calls(&[("memory_save", json!({ "content": "The key is blue" }))]),
            () if hangs.load(Ordering::SeqCst) => Say::text("").hang(At::Headers),
            () => Say::text("kept the key"),
        }
    });
    let home = home(&double, "");
    let daemon = home.start();
    daemon.client("c").ask("1", "branch please");
    hanging(&double, 1);
    journalled(&home, 1);
    daemon.kill();
    hang.store(false, Ordering::SeqCst);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("told: kept the key");
    drop(daemon);
    assert_eq!(read(&home, "SELECT content FROM memories"), ["The key is blue"], "saved once");
    let went_on = double.requests().into_iter().rfind(|request| offers(request, "memory_save")).unwrap();
    assert!(went_on.json.to_string().contains("branch please"), "it still knows what it was forked from");
    assert_eq!(replayed(&home, "resume", same), 1);
}

#[test]
fn a_worker_killed_within_a_command_is_told_as_interrupted_once() {
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let double = Double::recording(move |request| {
        talk(request).unwrap_or_else(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            calls(&[("shell", json!({ "command": "echo began >> began.txt; sleep 60" }))])
        })
    });
    let home = home(&double, "");
    let daemon = home.start();
    daemon.client("c").ask("1", "work");
    let file = home.folder().join("agents/main/workspace/began.txt");
    eventually("the command runs", DEADLINE, || file.exists());
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("told: Interrupted");
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("2", "hello?");
    assert_eq!(times(&client, "told: Interrupted"), 1, "{:?}", client.said);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    drop(daemon);
}

#[test]
fn a_run_that_is_cut_off_again_and_again_goes_on_three_times() {
    let double =
        Double::recording(|request| talk(request).unwrap_or_else(|| Say::text("").hang(At::Headers)));
    let home = home(&double, "");
    let daemon = home.start();
    daemon.client("c").ask("1", "work");
    hanging(&double, 1);
    daemon.kill();
    for round in 2..=4 {
        let daemon = home.start();
        hanging(&double, round);
        daemon.kill();
    }
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("told: Interrupted");
    drop(daemon);
    let asked = double.requests().iter().filter(|request| offers(request, "set_status")).count();
    assert_eq!(asked, 4);
    assert_eq!(replayed(&home, "resume", cut_off), 3);
}

fn parts() -> impl Fn(&Request) -> Say {
    |request| {
        if let Some(said) = talk(request) {
            return said;
        }
        let last = last_message(request);
        match () {
            () if last.contains("second part") => {
                assert!(request.json.to_string().contains("the first part is done"), "it remembers");
                calls(&[("set_status", json!({ "status": "two", "kind": "outcome" }))])
            }
            () if last.contains("noted") && request.json.to_string().contains("second part") => {
                Say::text("the second part is done")
            }
            () if last.contains("noted") => Say::text("the first part is done"),
            () => calls(&[("set_status", json!({ "status": "one", "kind": "outcome" }))]),
        }
    }
}

#[test]
fn a_worker_that_waits_waits_again_after_a_kill_and_after_a_stop() {
    let double = Double::recording(parts());
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "work with me");
    client.hear("told: the first part is done");
    daemon.kill();
    let daemon = home.start();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("2", "route");
    client.hear("told: the second part is done");
    assert_eq!((times(&client, "first part"), times(&client, "Interrupted")), (1, 0), "{:?}", client.said);
    assert_eq!(read(&home, "SELECT status FROM worker_runs"), ["waiting_for_input"]);
    let requests = double.requests();
    let asked = requests.iter().filter(|request| offers(request, "set_status")).count();
    assert_eq!(asked, 4, "a worker that waits asks no model");
    requests.iter().for_each(assert_paired);
    drop(daemon);
    assert_eq!(replayed(&home, "resume", |verdict| *verdict == Verdict::Waits), 1);
}

/// A worker with whom one works, told to go on while its model hangs; the turn that told it is over.
fn routed_while_busy(hang: &Arc<AtomicBool>) -> (Double, Home) {
    let hangs = hang.clone();
    let double = Double::recording(move |request| {
        if let Some(said) = talk(request) {
            return said;
        }
        match () {
            () if hangs.load(Ordering::SeqCst) => Say::text("").hang(At::Headers),
            () if last_message(request).contains("noted") => Say::text("all parts are done"),
            () => calls(&[("set_status", json!({ "status": "so it went", "kind": "outcome" }))]),
        }
    });
    let home = home(&double, "");
    (double, home)
}

/// Requests of workers in which these words stand so often.
fn asked_with(double: &Double, words: &str, times: usize) -> usize {
    let requests = double.requests();
    let workers = requests.iter().filter(|request| offers(request, "set_status"));
    workers.filter(|request| request.json.to_string().matches(words).count() == times).count()
}

#[test]
fn a_message_for_a_worker_reaches_it_once_also_after_a_kill() {
    for orderly in [false, true] {
        let hang = Arc::new(AtomicBool::new(true));
        let (double, home) = routed_while_busy(&hang);
        let daemon = home.start();
        let mut client = daemon.client("c");
        client.ask("1", "work with me");
        hanging(&double, 1);
        client.send("2", "route");
        client.hear("routed");
        if orderly {
            let (status, log) = daemon.stop();
            assert!(status.success(), "{log}");
        } else {
            daemon.kill();
        }
        hang.store(false, Ordering::SeqCst);
        let daemon = home.start();
        let mut client = daemon.client("c");
        client.hear("told: all parts are done");
        let heard = "SELECT payload FROM run_journal WHERE kind = 'route'";
        eventually("it has heard the message", DEADLINE, || read(&home, heard).len() == 1);
        assert!(asked_with(&double, "and the second part", 1) > 0);
        assert_eq!(asked_with(&double, "and the second part", 2), 0);
        // What it has heard it does not hear again.
        daemon.kill();
        let daemon = home.start();
        daemon.client("c").ask("3", "hello?");
        assert_eq!(read(&home, heard).len(), 1);
        drop(daemon);
        assert_eq!(asked_with(&double, "and the second part", 2), 0);
    }
}

#[test]
fn a_message_for_a_worker_that_does_not_go_on_is_named_in_its_result() {
    let double = Double::recording(|request| {
        talk(request).unwrap_or_else(|| calls(&[("shell", json!({ "command": "echo > began; sleep 60" }))]))
    });
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "work with me");
    let file = home.folder().join("agents/main/workspace/began");
    eventually("the command runs", DEADLINE, || file.exists());
    client.send("2", "route");
    client.hear("routed");
    daemon.kill();
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.hear("told: Interrupted");
    let told = client.said.iter().find(|said| said.contains("Interrupted")).unwrap();
    assert!(told.contains("and the second part"), "{told}");
    drop(daemon);
}

#[test]
fn an_orderly_stop_cuts_a_run_off_and_the_next_start_goes_on() {
    let hang = Arc::new(AtomicBool::new(true));
    let hangs = hang.clone();
    let double = Double::recording(move |request| {
        talk(request).unwrap_or_else(|| match hangs.load(Ordering::SeqCst) {
            true => Say::text("").hang(At::Headers),
            false => done(request),
        })
    });
    let home = home(&double, "");
    let daemon = home.start();
    daemon.client("c").ask("1", "work");
    hanging(&double, 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let daemon = home.start();
    hanging(&double, 2);
    daemon.kill();
    hang.store(false, Ordering::SeqCst);
    let daemon: Daemon<'_> = home.start();
    let mut client = daemon.client("c");
    client.hear("told: all done");
    assert_eq!(times(&client, "Interrupted"), 0);
    drop(daemon);
    assert_eq!(replayed(&home, "resume", same), 2);
}

#[test]
fn a_worker_knows_the_conversation_only_where_it_is_told_to_fork() {
    for (context, knows) in [("none", false), ("fork", true)] {
        let seen = Arc::new(Mutex::new(String::new()));
        let shown = seen.clone();
        let double = Double::answering(move |request| {
            talk(request).unwrap_or_else(|| {
                *shown.lock().unwrap() = request.json.to_string();
                done(request)
            })
        });
        let home = home(&double, &format!("worker_context = \"{context}\""));
        let daemon = home.start();
        let mut client = daemon.client("c");
        client.ask("0", "the cellar key is blue");
        client.send("1", "work");
        client.hear("told: all done");
        assert_eq!(seen.lock().unwrap().contains("cellar key is blue"), knows, "{context}");
        drop(daemon);
    }
}

#[test]
fn workers_leave_logs_as_told_and_are_inspected() {
    for (mode, good, bad) in [
        ("errors_only", None, Some("worker-")),
        ("all_separate", Some("worker-"), Some("worker-")),
        ("all_combined", Some("workers.log"), Some("workers.log")),
    ] {
        for (succeeds, expected) in [(true, good), (false, bad)] {
            let double = Double::recording(move |request| {
                if let Some(said) = talk(request) {
                    return said;
                }
                if offers(request, "worker_inspect") {
                    let last = last_message(request);
                    return match () {
                        () if last.contains("steps") => Say::text("it was set_status"),
                        () if last.contains("workers") => {
                            let id = last.split("\\\"id\\\":").nth(1).unwrap().split(',').next().unwrap();
                            calls(&[("worker_inspect", json!({ "worker_id": format!("worker:{id}") }))])
                        }
                        () => calls(&[("worker_inspect", json!({}))]),
                    };
                }
                let kind = if succeeds { "outcome" } else { "failure" };
                match last_message(request).contains("noted") {
                    true => Say::text("that is it"),
                    false => calls(&[("set_status", json!({ "status": "so it went", "kind": kind }))]),
                }
            });
            let home = home(&double, &format!("worker_log_mode = \"{mode}\""));
            let daemon = home.start();
            let mut client = daemon.client("c");
            client.send("1", "work");
            client.hear("that is it");
            client.send("2", "branch please");
            client.hear("it was set_status");
            drop(daemon);
            let logs = home.folder().join("agents/main/logs");
            let files: Vec<_> = std::fs::read_dir(&logs).into_iter().flatten().flatten().collect();
            assert_eq!(files.len(), usize::from(expected.is_some()), "{mode} {succeeds}");
            for file in files {
                assert!(file.file_name().to_string_lossy().starts_with(expected.unwrap()));
                let text = std::fs::read_to_string(file.path()).unwrap();
                assert!(text.contains("task: the task") && text.contains("call set_status"), "{text}");
            }
        }
    }
}

#[test]
fn a_type_of_task_has_a_model_of_its_own_also_after_a_kill() {
    let hang = Arc::new(AtomicBool::new(true));
    let hangs = hang.clone();
    let double = Double::recording(move |request| {
        let last = last_message(request);
        if offers(request, "spawn_worker") && last.contains(">work") {
            assert!(request.json.to_string().contains("`task_type` where it fits: coding, sums"));
            return calls(&[("spawn_worker", json!({ "task": "the task", "task_type": "coding" }))]);
        }
        talk(request).unwrap_or_else(|| match hangs.load(Ordering::SeqCst) {
            true => Say::text("").hang(At::Headers),
            false => done(request),
        })
    });
    let overrides = "task_overrides = { coding = \"double/big\", sums = \"double/small\" }\n";
    let home = Home::new(&format!("{}{overrides}", config(&double, "")));
    let daemon = home.start();
    daemon.client("c").ask("1", "work");
    hanging(&double, 1);
    daemon.kill();
    hang.store(false, Ordering::SeqCst);
    let daemon = home.start();
    daemon.client("c").hear("told: all done");
    let model = |request: &Request| request.json["model"].as_str().unwrap().to_owned();
    let (talking, working): (Vec<Request>, Vec<Request>) =
        double.requests().into_iter().partition(|request| offers(request, "spawn_worker"));
    assert!(talking.iter().all(|request| model(request) == "m"));
    assert!(working.len() > 2 && working.iter().all(|request| model(request) == "big"));
    drop(daemon);
}

#[test]
fn a_long_run_is_said_to_have_met_its_limit_once_and_only_at_its_end() {
    let made = AtomicUsize::new(0);
    let double = Double::recording(move |request| {
        talk(request).unwrap_or_else(|| {
            let number = made.fetch_add(1, Ordering::SeqCst);
            calls(&[("shell", json!({ "command": format!("echo step {number}") }))])
        })
    });
    let home = home(&double, "worker_max_turns = 17");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "work");
    client.hear("told: Not finished");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let limits = read(&home, "SELECT details FROM cortex_events WHERE event_type = 'run_limit'");
    assert_eq!(limits.len(), 1, "{limits:?}");
    assert!(limits[0].contains("\"model_calls\":17"), "{limits:?}");
}
