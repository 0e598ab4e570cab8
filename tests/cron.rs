//! Jobs that run at their time, in the whole binary: a model at the HTTP level makes them and does them.
//! Nobody waits for a slot here: a job's anchor is moved into the past, and the next look finds it due.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use daemon::{Client, DEADLINE, Daemon, Home, eventually};
use llm_double::script::{calls, config, last_message, offers};
use llm_double::{At, Double, Request, Say};
use rusqlite::Connection;
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;

fn home(double: &Double, more: &str) -> Home {
    Home::new(&config(double, more))
}

/// In a conversation with a person: makes the hourly job that is asked for.
fn make(request: &Request) -> Say {
    assert!(!offers(request, "set_outcome"), "that is for jobs");
    let last = last_message(request);
    // A second one of this name is refused, in words that the model reads.
    if last.contains("next_run") || last.contains("there is a job") {
        return calls(&[("reply", json!({ "content": "made" }))]);
    }
    calls(&[(
        "cron",
        json!({ "action": "create", "id": "job", "prompt": "Report the hour.", "interval_secs": 3600 }),
    )])
}

/// Waits for the acknowledgement, so that a restart finds nothing of it.
fn made(client: &mut Client) {
    assert_eq!(client.ask("make", "tell me every hour what hour it is"), "made");
    client.poll(1);
}

/// Moves the job's anchor, so that one of its slots came `milliseconds` ago.
fn make_due(home: &Home, milliseconds: i64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let anchor = i64::try_from(now).unwrap() - HOUR - milliseconds;
    let changed =
        Connection::open(home.database()).unwrap().execute("UPDATE cron_jobs SET anchor = ?1", [anchor]);
    assert_eq!(changed.unwrap(), 1);
}

fn cron(home: &Home, what: &str) -> Vec<Value> {
    let output = home.command(&["cron", what, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn states(home: &Home) -> Vec<String> {
    let mut states: Vec<_> =
        cron(home, "runs").iter().map(|run| run["state"].as_str().unwrap().to_owned()).collect();
    states.reverse();
    states
}

fn unasked(client: &mut Client, count: usize) -> Vec<String> {
    let started = Instant::now();
    while client.unasked.len() < count && started.elapsed() < DEADLINE {
        client.poll(5);
    }
    client.unasked.clone()
}

fn until_states(home: &Home, expected: &[&str]) {
    eventually("the runs", DEADLINE, || states(home) == expected);
}

#[test]
fn the_offline_responder_reminds() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("c");
    let answer = client.ask("1", "remind me in 1 second to call Ann");
    assert!(answer.starts_with("I will remind you on") && answer.ends_with("call Ann"), "{answer}");
    assert_eq!(unasked(&mut client, 1), ["Reminder: call Ann"]);
    assert!(client.ask("2", "remind me every day at 9 to stretch").contains("again and again"));
    assert!(client.ask("3", "remind me every 5 seconds to breathe").contains("from 60 to"));
    let listed = client.ask("4", "list reminders");
    assert!(listed.contains("stretch") && !listed.contains("Ann"), "what is over is not listed: {listed}");
    // Jobs of this conversation are nobody else's.
    let mut other = daemon.client("other");
    assert!(other.ask("1", "list reminders").contains("No reminders"));
    assert!(other.ask("2", "cancel the reminder job-2").contains("has no job"));
    assert!(client.ask("5", "cancel the reminder job-9").contains("has no job"));
    let jobs = cron(&home, "list");
    let of = |field: &str| jobs.iter().map(|job| job[field].clone()).collect::<Vec<_>>();
    assert_eq!(of("state"), ["over", "on"]);
    assert_eq!(of("cron_expr"), [Value::Null, json!("0 9 * * *")]);
    assert_eq!(of("delivery_target"), ["webhook:c", "webhook:c"]);
    let runs = cron(&home, "runs");
    assert_eq!(runs.len(), 1);
    assert_eq!((&runs[0]["state"], &runs[0]["outcome"]), (&json!("succeeded"), &json!("Reminder: call Ann")));
    let told = home.command(&["cron", "list"]).output().unwrap();
    assert!(String::from_utf8(told.stdout).unwrap().contains("stretch"));
    assert!(client.ask("6", "cancel the reminder job-2").contains("is gone"));
    assert!(client.ask("7", "list reminders").contains("No reminders"));
    drop(daemon);
}

#[test]
fn a_reminder_that_was_missed_comes_late_and_one_that_was_cut_off_is_told() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "remind me in 1 hour to call Ann");
    client.poll(1);
    daemon.kill();
    // Days later.
    make_due(&home, 50 * HOUR);
    let daemon = home.start();
    assert_eq!(unasked(&mut client, 1), ["Reminder: call Ann"]);
    client.ask("2", "remind me in 2 hours to feed the cat");
    client.poll(1);
    daemon.kill();
    // As if the power had failed in the middle of the run.
    let database = Connection::open(home.database()).unwrap();
    let changed = database
        .execute_batch(
            "UPDATE cron_jobs SET enabled = 0, done = 1;
             INSERT INTO cron_executions (job_id, job, slot, state, claimed_at)
                 SELECT id, name, anchor, 'running', anchor FROM cron_jobs WHERE prompt LIKE '%cat%';",
        )
        .is_ok();
    assert!(changed);
    let daemon = home.start();
    let told = unasked(&mut client, 2);
    assert!(told.len() == 2 && told[1].contains("feed the cat") && told[1].contains("restart"), "{told:?}");
    assert_eq!(states(&home), ["succeeded", "interrupted"]);
    drop(daemon);
}

#[test]
fn a_slot_runs_once_across_a_kill_in_the_middle_of_it_and_restarts() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    // Whether the person's conversation shows what the second run said there.
    let seen = Arc::new(AtomicBool::new(false));
    let sees = seen.clone();
    let double = Double::answering(move |request| {
        if !offers(request, "set_outcome") {
            let messages = request.json["messages"].as_array().unwrap();
            let said =
                |message: &&Value| message["role"] == "assistant" && message.to_string().contains("run 2");
            sees.store(messages.iter().any(|message| said(&message)), Ordering::SeqCst);
            return make(request);
        }
        let last = last_message(request);
        let messages = request.json["messages"].as_array().unwrap();
        assert!(messages.len() == 2 && last.contains("Report the hour."), "a fresh channel: {messages:?}");
        assert!(!offers(request, "reply") && !offers(request, "cron"));
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => Say::text("never comes").hang(At::Start),
            number => calls(&[("set_outcome", json!({ "content": format!("run {number}") }))]),
        }
    });
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    made(&mut client);
    daemon.kill();
    make_due(&home, 5_000);
    let daemon = home.start();
    double.wait_until_hanging(1, DEADLINE);
    assert_eq!(states(&home), ["running"]);
    daemon.kill();
    // The slot was claimed: it is not run again, and the job goes on with its next one.
    let daemon = home.start();
    assert_eq!(client.ask("2", "tell me every hour what hour it is"), "made");
    assert_eq!(states(&home), ["interrupted"]);
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert!(client.unasked.is_empty(), "the job comes again, so nobody is troubled: {:?}", client.unasked);
    daemon.kill();
    make_due(&home, 4_000);
    let daemon = home.start();
    assert_eq!(unasked(&mut client, 1), ["run 1"]);
    client.poll(1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let daemon = home.start();
    assert_eq!(client.ask("3", "tell me every hour what hour it is"), "made");
    assert_eq!((tries.load(Ordering::SeqCst), client.unasked.len()), (2, 1));
    let runs = cron(&home, "runs");
    assert_eq!((&runs[0]["state"], &runs[0]["delivery"]), (&json!("succeeded"), &json!("sent")));
    // Each run sees a fresh channel, and the person's conversation knows what was said in it.
    daemon.kill();
    make_due(&home, 3_000);
    let daemon = home.start();
    assert_eq!(unasked(&mut client, 2)[1], "run 2");
    assert_eq!(client.ask("4", "tell me every hour what hour it is"), "made");
    assert!(seen.load(Ordering::SeqCst));
    drop(daemon);
}

#[test]
fn a_job_that_the_budget_leaves_no_model_reminds_and_is_not_switched_off() {
    let double = Double::recording(make);
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    made(&mut client);
    daemon.kill();
    let asked = double.requests().len();
    let config = std::fs::read_to_string(home.config()).unwrap();
    std::fs::write(home.config(), format!("{config}\n[budget]\nday_tokens = 10\n")).unwrap();
    let mut expected = Vec::new();
    for late in [9_000, 8_000, 7_000, 6_000] {
        make_due(&home, late);
        let daemon = home.start();
        expected.push("succeeded");
        until_states(&home, &expected);
        let told = unasked(&mut client, expected.len());
        assert!(told.iter().all(|text| text.ends_with("Report the hour.")), "{told:?}");
        daemon.kill();
    }
    assert_eq!(double.requests().len(), asked, "nobody was asked");
    assert_eq!(cron(&home, "list")[0]["state"], "on");
}

#[test]
fn three_failures_in_a_row_switch_the_job_off_and_say_so() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let double = Double::answering(move |request| {
        if !offers(request, "set_outcome") {
            return make(request);
        }
        // The last run by a model that refuses: nobody is told that none can be reached.
        match counted.fetch_add(1, Ordering::SeqCst) {
            4.. => Say::error(400, "invalid_request_error", "no such option"),
            _ => calls(&[("no_such_tool", json!({}))]),
        }
    });
    let home = home(&double, "max_turns = 2");
    let daemon = home.start();
    let mut client = daemon.client("c");
    made(&mut client);
    daemon.kill();
    let mut expected = Vec::new();
    for late in [9_000, 8_000, 7_000, 6_000] {
        assert!(client.unasked.is_empty() || expected.len() == 3);
        make_due(&home, late);
        let daemon = home.start();
        if expected.len() < 3 {
            expected.push("failed");
            until_states(&home, &expected);
        } else {
            let status = client.ask("8", "/status");
            assert!(status.contains("Switched off after failures: "), "{status}");
            assert_eq!(client.ask("9", "tell me every hour what hour it is"), "made");
            until_states(&home, &expected);
        }
        let told = unasked(&mut client, usize::from(expected.len() == 3));
        assert!(told.iter().all(|text| text.contains("three times in a row")), "{told:?}");
        daemon.kill();
    }
    assert_eq!(tries.load(Ordering::SeqCst), 5, "two runs of two steps, and one that was refused");
    assert_eq!(client.unasked.len(), 1);
    assert_eq!(cron(&home, "list")[0]["state"], "off");
    let errors: Vec<String> =
        cron(&home, "runs").iter().map(|run| run["error"].as_str().unwrap().to_owned()).collect();
    assert!(errors[0].contains("no such option") && errors[1].contains("too many steps"), "{errors:?}");
}

#[test]
fn a_job_may_use_workers_and_may_have_nothing_to_say() {
    let double = Double::answering(|request| {
        let last = last_message(request);
        if offers(request, "set_outcome") {
            return match () {
                () if last.contains("twelve eggs") => {
                    calls(&[("set_outcome", json!({ "content": "There are twelve eggs." }))])
                }
                () if last.contains("started") => Say::text("waiting"),
                () if last.contains("Report the hour.") => calls(&[
                    ("set_outcome", json!({ "content": "a first guess" })),
                    ("spawn_worker", json!({ "task": "count the eggs" })),
                ]),
                () => panic!("unexpected: {last}"),
            };
        }
        if offers(request, "cron") {
            return make(request);
        }
        if last.contains("noted") {
            return Say::text("twelve eggs");
        }
        calls(&[("set_status", json!({ "status": "counted", "kind": "outcome" }))])
    });
    let home = home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    made(&mut client);
    daemon.kill();
    make_due(&home, 2_000);
    let daemon = home.start();
    assert_eq!(unasked(&mut client, 1), ["There are twelve eggs."], "the last call wins");
    until_states(&home, &["succeeded"]);
    drop(daemon);
    let double = Double::answering(|request| {
        if offers(request, "set_outcome") {
            return Say::text("nothing to report, and nobody reads this");
        }
        make(request)
    });
    let home = self::home(&double, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    made(&mut client);
    daemon.kill();
    make_due(&home, 2_000);
    let daemon = home.start();
    until_states(&home, &["succeeded"]);
    assert_eq!(cron(&home, "runs")[0]["delivery"], "none");
    client.poll(0);
    assert!(client.unasked.is_empty(), "{:?}", client.unasked);
    drop(daemon);
}

/// How often a thread of the daemon has gone to sleep, which it does once for each time that it wakes.
fn sleeps(daemon: &Daemon<'_>, thread: &str) -> String {
    for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == thread {
            let status = read("status");
            return status.lines().find(|line| line.starts_with("voluntary_ctxt")).unwrap().to_owned();
        }
    }
    panic!("there is no thread {thread}");
}

#[test]
fn jobs_that_are_not_due_cost_nothing() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("c");
    for (id, text) in [
        ("1", "remind me in 3 hours to stretch"),
        ("2", "remind me every 6 hours to drink"),
        ("3", "remind me in 5 days to rest"),
    ] {
        assert!(client.ask(id, text).starts_with("I will remind you"));
    }
    eventually("its first upkeep is over", DEADLINE, || daemon.status()["cortex"][0]["state"] == "warm");
    // The answers are acknowledged, and what the turns needed is given back.
    client.poll(1);
    client.poll(3);
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let written = || read("io").lines().find(|line| line.starts_with("write_bytes")).map(str::to_owned);
    let before = (written(), sleeps(&daemon, "hub"), sleeps(&daemon, "clock"));
    client.poll(3);
    assert_eq!(before, (written(), sleeps(&daemon, "hub"), sleeps(&daemon, "clock")));
    drop(daemon);
}
