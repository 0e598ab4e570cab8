//! The whole binary: answers, power cuts, stops, a full disk, children that must not survive.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use daemon::{DEADLINE, Home, eventually, get, not_run, processes_with};

#[test]
fn it_remembers_over_the_webhook_and_recalls_after_a_power_cut() {
    let home = Home::new("");
    let first = home.start();
    let mut client = first.client("home");
    assert!(client.ask("1", "remember that the boiler was serviced in March").contains("boiler"));
    first.kill();
    let second = home.start();
    let mut client = second.client("home");
    assert!(client.ask("2", "when was the boiler serviced?").contains("March"));
    let (status, log) = second.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn chat_once_prints_the_answer_and_leaves() {
    let home = Home::new("");
    let daemon = home.start();
    let output = home.chat_once("remember the spare key is at Anna's");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Anna"));
    let output = home.chat_once("where is the spare key?");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Anna"));
    drop(daemon);
    let output = home.chat_once("anybody there?");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon answers"));
}

#[test]
fn the_same_message_twice_is_answered_once() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("m", "help");
    let (status, body) = client.try_send("m", "help").unwrap();
    assert_eq!((status, body["duplicate"].as_bool()), (202, Some(true)));
    client.answer("m");
    assert!(!client.poll(1), "a second answer came: {:?}", client.answers);
}

#[test]
fn a_token_is_needed_when_one_is_set() {
    let home = Home::new("");
    let port = home.webhook;
    let text =
        format!("[messaging.webhook]\nport = {port}\nauth_token = \"s3cret\"\n[api]\nport = {}\n", home.api);
    std::fs::write(home.folder().join("config.toml"), text).unwrap();
    let daemon = home.start();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    assert_eq!(get(&url("/health")).0, 200);
    assert_eq!(get(&url("/poll/c")).0, 401);
    assert_eq!(daemon.client("c").try_send("1", "hi").unwrap().0, 401);
    let (_, log) = daemon.stop();
    assert!(!log.contains("s3cret"));
}

#[test]
fn kill_at_random_points_while_200_messages_come_in() {
    const MESSAGES: usize = 200;
    let home = Home::new("");
    let mut running = home.start();
    let mut client = running.client("flood");
    let mut seed: u64 = 0x2545_f491_4f6c_dd1d;
    let mut kills = 0;
    for number in 0..MESSAGES {
        let id = format!("m{number}");
        // The client sends again until it was told that the message is taken.
        loop {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if (seed >> 33).is_multiple_of(25) {
                // In the middle of whatever the daemon is doing with the last messages.
                let burst = client.try_send(&id, "help");
                running.kill();
                kills += 1;
                running = home.start();
                if burst.is_some_and(|(status, _)| status == 202) {
                    break;
                }
            }
            if client.try_send(&id, "help").is_some_and(|(status, _)| status == 202) {
                break;
            }
        }
    }
    let started = Instant::now();
    while client.answers.len() < MESSAGES && started.elapsed() < DEADLINE {
        client.poll(5);
    }
    client.poll(1);
    assert!(kills >= 3, "only {kills} kills");
    for number in 0..MESSAGES {
        let answers = client.answers.get(&format!("m{number}")).map_or(0, Vec::len);
        assert_eq!(answers, 1, "m{number} was answered {answers} times; {kills} kills");
    }
}

/// A provider that takes the request and never answers; sends a note for every request.
fn silent_provider() -> (u16, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (note, notes) = mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).unwrap_or(0) > 0 && note.send(()).is_err() {
                return;
            }
            open.push(stream);
        }
    });
    (port, notes)
}

fn silent_config(port: u16) -> String {
    format!(
        "[llm.provider.slow]\napi_type = \"openai_chat_completions\"\nbase_url = \"http://127.0.0.1:{port}/v1\"\napi_key = \"k\"\n\
         [defaults.routing]\nchannel = \"slow/model\"\n"
    )
}

#[test]
fn a_stop_in_the_middle_of_a_turn_leaves_the_message_for_the_next_start() {
    let (port, asked) = silent_provider();
    let mut home = Home::new(&silent_config(port));
    let first = home.start();
    first.client("c").send("m", "help");
    asked.recv_timeout(DEADLINE).unwrap();
    let started = Instant::now();
    let (status, log) = first.stop();
    assert!(status.success(), "{log}");
    assert!(started.elapsed() < Duration::from_secs(8), "the stop took {:?}", started.elapsed());
    home.configure("");
    let second = home.start();
    assert!(second.client("c").answer("m").contains("remember"));
}

#[test]
fn cancelling_a_turn_that_waits_for_a_silent_model_is_quick_and_answered() {
    let (port, asked) = silent_provider();
    let home = Home::new(&silent_config(port));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("m", "hello");
    asked.recv_timeout(DEADLINE).unwrap();
    let process = daemon.status()["processes"][0]["process"].as_str().unwrap().to_owned();
    let body = serde_json::json!({ "agent_id": "main", "process_type": "channel", "process_id": process });
    let started = Instant::now();
    ureq::post(format!("http://127.0.0.1:{}/api/channels/cancel-process", home.api))
        .send(body.to_string())
        .unwrap();
    assert!(client.answer("m").contains("Stopped"));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn a_cancelled_worker_leaves_no_process() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        return not_run("bubblewrap is not installed");
    }
    for mode in ["enabled", "disabled"] {
        cancelled_worker(mode);
    }
}

fn cancelled_worker(mode: &str) {
    let home = Home::new(&format!("[defaults.sandbox]\nmode = \"{mode}\"\n"));
    let daemon = home.start();
    let mut client = daemon.client("c");
    // An unusual number, to find the processes by.
    let seconds = format!("1000.{}{}", mode.len(), std::process::id());
    client.send("1", &format!("run setsid sleep {seconds} & sleep {seconds}"));
    eventually("the command runs", DEADLINE, || processes_with(&seconds).len() >= 2);
    // The turn that has started it may still be there.
    let status = daemon.status();
    let mut running = status["processes"].as_array().unwrap().iter();
    let worker = running.find_map(|one| one["process"].as_str().filter(|name| name.starts_with("worker:")));
    let worker = worker.expect("a worker");
    client.send("2", &format!("cancel {}", worker.replace(':', " ")));
    eventually("all processes are gone", DEADLINE, || processes_with(&seconds).is_empty());
    assert!(client.answer("1").contains("Cancelled") || client.answer("2").contains("ancel"));
}

#[test]
fn no_command_outlives_a_killed_daemon() {
    if Command::new("bwrap").arg("--version").output().is_err() {
        return not_run("bubblewrap is not installed");
    }
    for mode in ["enabled", "disabled"] {
        let home = Home::new(&format!("[defaults.sandbox]\nmode = \"{mode}\"\n"));
        let daemon = home.start();
        let seconds = format!("2000.{}{}", mode.len(), std::process::id());
        let sleeping = || processes_with(&format!("sleep\0{seconds}")).len();
        daemon.client("c").send("1", &format!("run setsid sleep {seconds} & sleep {seconds}"));
        eventually("the command runs", DEADLINE, || sleeping() == 2);
        daemon.kill();
        // Inside the sandbox they die with the daemon, else with its next start.
        if mode == "enabled" {
            eventually("all processes are gone", DEADLINE, || sleeping() == 0);
        }
        let daemon = home.start();
        eventually("all processes are gone", DEADLINE, || sleeping() == 0);
        // The person who asked hears of it.
        assert!(!daemon.client("c").answer("1").is_empty());
    }
}

#[test]
fn a_second_daemon_refuses_the_same_data_folder() {
    let home = Home::new("");
    let daemon = home.start();
    let output = home.command(&["run", "--no-chat"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another spacebot"));
    drop(daemon);
}

#[test]
fn a_wrong_config_ends_with_code_2_and_every_mistake() {
    let home = Home::new("[defaults]\nmax_turn = 3\nbranch_max_turns = 'x'");
    let output = home.command(&["run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("config.toml:2: defaults.max_turn: unknown key (did you mean `max_turns`?)"),
        "{said}"
    );
    assert!(said.contains("config.toml:3: defaults.branch_max_turns"), "{said}");
    let home = Home::new("[llm]\nanthropic_key = \"sk-ant-secret\"");
    let output = home.command(&["check"]).output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("[hidden]") && !said.contains("sk-ant-secret"), "{said}");
}

#[test]
fn idle_means_idle() {
    let home = Home::new("");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("1", "help");
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    let written = || read("io").lines().find(|line| line.starts_with("write_bytes")).map(str::to_owned);
    eventually("its first upkeep is over", DEADLINE, || daemon.status()["cortex"][0]["state"] == "warm");
    // Answers are acknowledged by the next poll; then nothing is due.
    client.poll(1);
    let before = written();
    client.poll(3);
    assert_eq!(before, written(), "something was written while nothing happened");
    assert!(daemon.status()["busy"].as_array().unwrap().is_empty());
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_recovers() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(folder).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return not_run("a small tmpfs cannot be mounted (not root?)");
    }
    let outcome = std::panic::catch_unwind(|| fill_and_recover(folder));
    // The mount must go also when the test fails; lazily, in case something still has it open.
    assert!(Command::new("umount").arg("-l").arg(folder).status().unwrap().success());
    outcome.unwrap();
}

fn fill_and_recover(folder: &std::path::Path) {
    let home = Home::at(folder, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("before", "help");
    let ballast = folder.join("ballast");
    let mut size = 4 << 20;
    let mut kept = Vec::new();
    while size > 0 {
        // Smaller and smaller pieces until not a byte is free.
        let piece = ballast.with_extension(size.to_string());
        std::fs::write(&piece, vec![1; size]).ok(); // what does not fit is the point
        kept.push(piece);
        size /= 2;
    }
    let long = "x".repeat(60_000);
    let mut refused = false;
    for number in 0..50 {
        match client.try_send(&format!("full{number}"), &format!("help {long}")) {
            Some((503, body)) => {
                assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
                refused = true;
                break;
            }
            Some((202, _)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused, "the disk was never full");
    kept.into_iter().for_each(|file| drop(std::fs::remove_file(file)));
    assert!(client.ask("after", "help").contains("remember"));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
