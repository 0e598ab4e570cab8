//! Tasks from their proposal to the word that they are done, with the whole binary and a model double;
//! over power cuts, over the command line, and taken back.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daemon::{DEADLINE, Home, eventually};
use llm_double::script::{calls, config, last_message};
use llm_double::{At, Double, Request, Say};
use serde_json::{Value, json};

fn home(double: &Double) -> Home {
    pausing(double, 0)
}

/// A task that fails pauses so long, and twice as long the next time.
fn pausing(double: &Double, seconds: u64) -> Home {
    Home::new(&config(double, &format!("task_retry_secs = {seconds}\n")))
}

fn reply(text: &str) -> Say {
    calls(&[("reply", json!({ "content": text }))])
}

/// The schema of a tool that the model is offered.
fn tool<'a>(request: &'a Request, name: &str) -> Option<&'a Value> {
    let tools = request.json["tools"].as_array()?;
    tools.iter().map(|tool| &tool["function"]).find(|tool| tool["name"] == name)
}

fn is_channel(request: &Request) -> bool {
    tool(request, "spawn_worker").is_some()
}

impl Home {
    fn task(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["task", "--json"];
        all.extend(arguments);
        let output = self.command(&all).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn outcomes(&self, number: u64) -> Vec<Value> {
        let shown = self.task(&["show", &number.to_string()]);
        shown["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].clone()).collect()
    }
}

#[test]
fn a_task_is_proposed_approved_done_and_told() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        if is_channel(request) {
            return match () {
                () if last.contains("look after") => calls(&[
                    ("branch", json!({ "description": "propose a task" })),
                    ("reply", json!({ "content": "a moment" })),
                ]),
                () if last.contains("proposed it") => reply("It is task 1."),
                () if last.contains("both rooms are watered") => reply("The plants are watered."),
                () => panic!("unexpected: {last}"),
            };
        }
        if tool(request, "task_create").is_some() {
            return match () {
                () if last.contains("approve it") => Say::text("proposed it as task 1"),
                () if last.contains("pending_approval") => {
                    // Whoever proposes does not approve.
                    calls(&[("task_update", json!({ "task_number": 1, "status": "ready" }))])
                }
                () => calls(&[(
                    "task_create",
                    json!({
                        "title": "Water the plants", "description": "Not the cactus.", "priority": "high",
                        "subtasks": ["balcony", "kitchen"], "metadata": { "litres": 3 },
                    }),
                )]),
            };
        }
        let own = tool(request, "task_update").expect("a bound worker may note what it has done");
        let fields = own["parameters"]["properties"].as_object().unwrap();
        assert!(!fields.contains_key("status") && fields.contains_key("subtasks"), "{own}");
        match () {
            () if last.contains("Task #1: Water the plants") => {
                assert!(last.contains("Not the cactus.") && last.contains("2. kitchen"), "{last}");
                calls(&[
                    (
                        "task_update",
                        json!({ "complete_subtask": 1, "metadata": { "litres": null, "by": "can" } }),
                    ),
                    ("task_update", json!({ "task_number": 7, "complete_subtask": 1 })),
                ])
            }
            () if last.contains("only its own task") => {
                calls(&[("set_status", json!({ "status": "watered", "kind": "outcome" }))])
            }
            () => Say::text("both rooms are watered"),
        }
    });
    let home = home(&double);
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "look after the plants");
    client.hear("It is task 1.");
    let before = double.requests().len();
    let listed = client.ask("2", "/tasks");
    assert!(listed.contains("#1 Water the plants (high, pending approval, 0 of 2 done)"), "{listed}");
    assert!(client.ask("3", "/approve 7").contains("no task 7"));
    assert_eq!(double.requests().len(), before, "commands ask no model");
    assert!(client.ask("4", "/approve 1").contains("approved"));
    client.hear("The plants are watered.");
    assert!(client.ask("5", "/approve #1").contains("done already"));
    assert!(client.ask("6", "/digest").contains("Done: #1 Water the plants"));
    let task = &home.task(&["show", "1"])["task"];
    assert_eq!((&task["status"], &task["result"]), (&json!("done"), &json!("both rooms are watered")));
    assert_eq!(
        (&task["created_by"], &task["approved_by"]),
        (&json!("process:branch:2"), &json!("person:una"))
    );
    assert_eq!(task["metadata"], json!({ "by": "can" }));
    assert_eq!(task["subtasks"][0]["completed"], json!(true));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

/// Hangs in the first `cuts` workers, and lets the next one be done.
fn stubborn(cuts: usize) -> Double {
    let workers = Arc::new(AtomicUsize::new(0));
    Double::recording(move |request| {
        let last = last_message(request);
        match () {
            () if is_channel(request) => {
                reply(if last.contains("it is done") { "told: done" } else { "told: failed" })
            }
            () if last.contains("Task #1") => {
                let begun = workers.fetch_add(1, Ordering::SeqCst);
                assert_eq!(
                    begun > 0,
                    last.contains(&format!("This is attempt {} of 3", begun + 1)),
                    "{last}"
                );
                if begun < cuts {
                    return Say { hang: Some(At::Start), ..Say::text("") };
                }
                calls(&[("set_status", json!({ "status": "done", "kind": "outcome" }))])
            }
            () => Say::text("it is done"),
        }
    })
}

#[test]
fn a_task_cut_off_by_power_cuts_is_tried_again_at_most_as_often_as_allowed() {
    for cuts in [2, 3] {
        let double = stubborn(cuts);
        let home = home(&double);
        // A task that was born in a conversation, as a branch would have made it.
        drop(home.start());
        put_task(&home, "c");
        let mut daemon = home.start();
        assert!(daemon.client("c").ask("1", "/approve 1").contains("approved"));
        for cut in 1..=cuts {
            double.wait_until_hanging(cut, DEADLINE);
            daemon.kill();
            daemon = home.start();
        }
        let mut client = daemon.client("c");
        let mut wanted = vec![json!("interrupted"); cuts];
        if cuts < 3 {
            client.hear("told: done");
            wanted.push(json!("success"));
        } else {
            client.hear("told: failed");
        }
        assert_eq!(home.outcomes(1), wanted);
        let status = if cuts < 3 { "done" } else { "failed" };
        assert_eq!(home.task(&["show", "1"])["task"]["status"], json!(status));
        client.poll(1);
        let told = client.said.iter().filter(|said| said.contains("told:")).count();
        assert_eq!(told, 1, "{:?}", client.said);
        // Nothing is left to do: a further start begins nothing.
        drop(daemon);
        let before = double.requests().len();
        let daemon = home.start();
        assert!(daemon.client("c").ask("2", "/status").contains("Nothing runs."));
        assert_eq!(double.requests().len(), before);
    }
}

/// Puts a task onto the board that waits for approval and tells its result in a webhook conversation.
fn put_task(home: &Home, conversation: &str) {
    use spacebot::clock::SystemClock;
    use spacebot::id::{ConversationId, InstanceId};
    use spacebot::message::Place;
    use spacebot::tasks::{Actor, NewTask, Tasks};
    let db = spacebot::db::Db::open_inline(&home.database(), None).unwrap();
    let place = Place {
        conversation: ConversationId::new(format!("webhook:{conversation}")),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: format!("webhook / {conversation}"),
    };
    let new = NewTask { place: Some(place), ..NewTask::new("a long one", Actor::Operator) };
    Tasks::new(db, SystemClock::shared()).create(new).unwrap();
}

#[test]
fn an_orderly_stop_costs_a_task_no_attempt() {
    let double = stubborn(1);
    let home = home(&double);
    let daemon = home.start();
    home.task(&["create", "stubborn", "--ready"]);
    double.wait_until_hanging(1, DEADLINE);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let task = &home.task(&["show", "1"])["task"];
    assert_eq!((&task["status"], &task["attempts"]), (&json!("ready"), &json!(0)));
    assert_eq!(home.outcomes(1), ["interrupted"]);
}

#[test]
fn the_command_line_begins_and_takes_back_with_and_without_a_daemon() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        match () {
            () if last.contains("never ends") => Say { hang: Some(At::Start), ..Say::text("") },
            () if last.contains("Task #") => {
                calls(&[("set_status", json!({ "status": "done", "kind": "outcome" }))])
            }
            () => Say::text("did it"),
        }
    });
    let home = home(&double);
    assert!(!home.command(&["task", "list"]).output().unwrap().status.success(), "there is no board yet");
    let daemon = home.start();
    let status = |number: u64| home.task(&["show", &number.to_string()])["task"]["status"].clone();
    assert_eq!(home.task(&["create", "one", "--priority", "low"])["status"], "backlog");
    assert_eq!(home.task(&["approve", "1"])["status"], "ready");
    eventually("task 1 is done", DEADLINE, || status(1) == "done");
    home.task(&["create", "it never ends", "--ready"]);
    double.wait_until_hanging(1, DEADLINE);
    assert_eq!(status(2), "in_progress");
    assert_eq!(home.task(&["cancel", "2"])["status"], "backlog");
    eventually("its worker is gone", DEADLINE, || daemon.status()["processes"] == json!([]));
    assert_eq!(home.outcomes(2), ["cancelled"]);
    for (arguments, wanted) in [
        (["approve", "9"], "no task 9"),
        (["cancel", "1"], "nothing to cancel"),
        (["show", "9"], "no task 9"),
        (["create", " "], "title is empty"),
    ] {
        let output = home.command(&["task", arguments[0], arguments[1]]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{arguments:?}: {said}");
    }
    drop(daemon);
    // Without a daemon it is written down; the next start begins it.
    home.task(&["create", "two", "--subtask", "a", "--subtask", "b"]);
    let output = home.command(&["task", "approve", "3"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("next start"));
    assert_eq!(status(3), "ready");
    let listed = home.command(&["task", "list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("    3  ready             medium    two\n") && !listed.contains("one"),
        "{listed}"
    );
    let _daemon = home.start();
    eventually("task 3 is done", DEADLINE, || status(3) == "done");
}

#[test]
fn nothing_is_written_and_nobody_asked_while_a_board_waits() {
    let double = Double::recording(|request| panic!("asked: {}", last_message(request)));
    let home = home(&double);
    drop(home.start());
    put_task(&home, "c");
    let daemon = home.start();
    // The board was changed beside the daemon: its bulletin tells the task, once.
    eventually("the bulletin is made", DEADLINE, || !daemon.status()["cortex"][0]["bulletin"].is_null());
    let mut client = daemon.client("c");
    client.ask("1", "/tasks");
    client.poll(1);
    let read = || std::fs::read_to_string(format!("/proc/{}/io", daemon.pid())).unwrap();
    let written = || read().lines().find(|line| line.starts_with("write_bytes")).map(str::to_owned);
    let before = written();
    client.poll(3);
    assert_eq!(before, written(), "something was written while nothing happened");
    assert!(daemon.status()["busy"].as_array().unwrap().is_empty());
    assert!(double.requests().is_empty());
}

#[test]
fn a_worker_that_says_it_failed_is_tried_again_and_the_last_word_is_told() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        match () {
            () if is_channel(request) => {
                assert!(last.contains("failed as often as it may") && last.contains("no ladder"), "{last}");
                reply("It could not be done.")
            }
            () if last.contains("Task #1") => {
                let first = !last.contains("This is attempt");
                assert!(first || last.contains("there is no ladder"), "the next one knows: {last}");
                calls(&[("set_status", json!({ "status": "no ladder", "kind": "failure" }))])
            }
            () => Say::text("there is no ladder"),
        }
    });
    let home = pausing(&double, 1);
    drop(home.start());
    put_task(&home, "c");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "/approve 1");
    client.hear("It could not be done.");
    assert_eq!(home.outcomes(1), ["failed", "failed", "failed"]);
    let shown = home.task(&["show", "1"]);
    let at = |attempt: usize, key: &str| shown["attempts"][attempt][key].as_i64().unwrap();
    let pauses = [1, 2].map(|attempt| at(attempt, "started_at") - at(attempt - 1, "ended_at"));
    assert!(pauses[0] >= 1000 && pauses[1] >= 2000, "{pauses:?}");
    assert_eq!(home.task(&["show", "1"])["task"]["status"], "failed");
}

#[test]
fn a_failed_task_pauses_also_over_a_power_cut_until_somebody_says_now() {
    let double = Double::recording(|request| {
        let last = last_message(request);
        assert!(!is_channel(request), "nobody waits for it: {last}");
        match () {
            () if last.contains("Task #") => {
                let kind = if last.contains("This is attempt") { "outcome" } else { "failure" };
                calls(&[("set_status", json!({ "status": "over", "kind": kind }))])
            }
            () => Say::text("it is over"),
        }
    });
    let home = pausing(&double, 600);
    let daemon = home.start();
    home.task(&["create", "x", "--ready"]);
    eventually("it has failed once", DEADLINE, || home.outcomes(1) == ["failed"]);
    daemon.kill();
    let daemon = home.start();
    // Whoever comes after it is not held up.
    home.task(&["create", "y", "--ready"]);
    eventually("the other one has failed once too", DEADLINE, || home.outcomes(2) == ["failed"]);
    assert_eq!(home.outcomes(1), ["failed"]);
    assert!(home.task(&["show", "1"])["task"]["retry_at"].is_i64());
    assert!(daemon.client("c").ask("1", "/approve 1").contains("approved"));
    eventually("it is done", DEADLINE, || home.outcomes(1) == ["failed", "success"]);
    daemon.kill();
    // Written down without a daemon, begun by the next start.
    home.task(&["approve", "2"]);
    let _daemon = home.start();
    eventually("the other one is done", DEADLINE, || home.outcomes(2) == ["failed", "success"]);
}

#[test]
fn without_a_model_a_task_is_not_called_done() {
    let home = Home::new("[defaults]\ntask_max_attempts = 1\n");
    let _daemon = home.start();
    home.task(&["create", "write a poem about the sea", "--ready"]);
    eventually("it has failed", DEADLINE, || home.task(&["show", "1"])["task"]["status"] == "failed");
    assert!(home.task(&["show", "1"])["task"]["result"].as_str().unwrap().contains("No language model"));
}
