//! What the whole binary costs while nothing happens: nothing. `make idle` measures for five minutes and
//! prints what it saw; the test looks for twenty seconds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use daemon::{Daemon, Home};

const CONVERSATIONS: usize = 20;
const MEMORIES: usize = 5_000;
/// How long is looked, unless `SPACEBOT_IDLE_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// After the last message everything has to have come to rest by then: answers are given up to whoever
/// waits for them, files are closed, what was needed for it is given back.
const REST_WITHIN: Duration = Duration::from_secs(120);
/// Without any change for so long, it rests: the upkeep of the memories waits for 35 s without a new one.
const REST: Duration = Duration::from_secs(40);
/// The cortex tells what has changed as soon as it is allowed to, not a quarter of an hour later.
const CORTEX: &str = "[defaults.cortex]\ntick_interval_secs = 5\nbulletin_interval_secs = 5\n";
/// Of one core, in thousandths.
const CPU_MAX: f64 = 1.0;

/// What the kernel has counted of the daemon since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counted {
    /// Bytes that went to a disk, and bytes that were handed to the kernel for any file.
    written: [u64; 2],
    cpu: Duration,
    /// Times that a thread was woken.
    wakes: u64,
    threads: usize,
}

fn count(daemon: &Daemon<'_>) -> Counted {
    let folder = PathBuf::from(format!("/proc/{}", daemon.pid()));
    let io = fs::read_to_string(folder.join("io")).unwrap();
    let number = |text: &str, key: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    let mut counted = Counted {
        written: [number(&io, "write_bytes"), number(&io, "wchar")],
        cpu: Duration::ZERO,
        wakes: 0,
        threads: 0,
    };
    for task in fs::read_dir(folder.join("task")).unwrap().flatten() {
        // Ticks are too coarse for what is to be seen here.
        let schedule = fs::read_to_string(task.path().join("schedstat")).unwrap();
        let nanoseconds = schedule.split_whitespace().next().unwrap().parse().unwrap();
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        counted.cpu += Duration::from_nanos(nanoseconds);
        counted.wakes += number(&status, "voluntary_ctxt_switches");
        counted.threads += 1;
    }
    counted
}

/// Lets time pass, and asks the daemon nothing: what it does then, it does by itself.
fn pass(time: Duration) {
    assert!(never::<()>().recv_timeout(time).is_err());
}

/// A house as after a busy month: conversations, memories, and jobs of which none is due.
fn furnish(home: &Home) {
    let mut lines = String::new();
    for number in 0..MEMORIES {
        writeln!(lines, "{{\"content\":\"The shelf {number} holds box {}\"}}", number * 7 % 911).unwrap();
    }
    let file = home.folder().join("memories.jsonl");
    fs::write(&file, lines).unwrap();
    let output = home.command(&["memory", "import"]).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with(&format!("{MEMORIES} imported")), "{said}");
}

fn talk(daemon: &Daemon<'_>) {
    let reminders = [
        "remind me in 3 hours to stretch",
        "remind me every 6 hours to drink",
        "remind me in 5 days to rest",
    ];
    for number in 0..CONVERSATIONS {
        let mut client = daemon.client(&format!("c{number}"));
        client.ask("1", "remember that the tea is green");
        if let Some(text) = reminders.get(number) {
            assert!(client.ask("2", text).starts_with("I will remind you"));
        }
        // The answer is acknowledged: nobody waits for anything.
        client.poll(0);
    }
}

fn settle(daemon: &Daemon<'_>) {
    let begun = Instant::now();
    let mut before = count(daemon);
    loop {
        pass(REST);
        let now = count(daemon);
        if now.written == before.written && now.threads == before.threads {
            return;
        }
        assert!(begun.elapsed() < REST_WITHIN, "it does not come to rest: {before:?}, then {now:?}");
        before = now;
    }
}

#[test]
fn a_daemon_that_nobody_talks_to_writes_nothing_and_sleeps() {
    let seconds = std::env::var("SPACEBOT_IDLE_SECONDS").ok();
    let time = Duration::from_secs(seconds.map_or(SECONDS, |text| text.parse().expect("seconds")));
    let home = Home::new(CORTEX);
    furnish(&home);
    let daemon = home.start();
    talk(&daemon);
    settle(&daemon);
    let before = count(&daemon);
    pass(time);
    let after = count(&daemon);
    let written = [after.written[0] - before.written[0], after.written[1] - before.written[1]];
    let cpu = after.cpu.saturating_sub(before.cpu);
    let share = cpu.as_secs_f64() / time.as_secs_f64() * 1e3;
    println!(
        "idle for {} s with {CONVERSATIONS} conversations, {MEMORIES} memories and 3 jobs: \
         {} bytes to the disk, {} bytes to files, {:.2} ms of CPU ({:.4} %), {} wake-ups in {} threads",
        time.as_secs(),
        written[0],
        written[1],
        cpu.as_secs_f64() * 1e3,
        share / 10.0,
        after.wakes - before.wakes,
        after.threads,
    );
    assert_eq!(written, [0, 0], "bytes to the disk, and to any file");
    assert!(share < CPU_MAX, "{cpu:?} of CPU in {time:?}");
    // The same counters see one message.
    let mut client = daemon.client("c1");
    client.ask("9", "remember that the cup is blue");
    let last = count(&daemon);
    assert!(last.written[1] > after.written[1] && last.cpu > after.cpu, "{after:?}, then {last:?}");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}
