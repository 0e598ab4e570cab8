//! The whole binary under a wall clock that libfaketime makes up: started in the wrong year, over both
//! nights of a change of the hour, and asleep.
//!
//! What libfaketime cannot make up is the kernel's word that the clock was set (`src/hub/clock_watch.rs`
//! waits for it): its clock moves without a system call. So the jumps here are ones that nobody was told
//! of, and [`Clock::look`] gives the daemon a reason of another kind to look at its jobs. The monotonic
//! clock stays the real one, as it does on a machine whose clock is set or which has slept.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;
use daemon::{Client, DEADLINE, Daemon, Home, eventually, not_run};
use llm_double::Double;
use llm_double::script::{calls, config};
use rusqlite::Connection;
use serde_json::json;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// Long enough for a job that is due to be seen running, in seconds.
const A_WHILE: u64 = 4;

/// The library, where Debian puts it.
fn library() -> Option<PathBuf> {
    let name = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    let found = Path::new(&name).exists().then(|| PathBuf::from(name));
    if found.is_none() {
        not_run("libfaketime is not installed");
    }
    found
}

/// Where a time service says that the clock is right, it is believed, however wrong the library makes it.
fn is_vouched_for() -> bool {
    let vouched = Path::new("/run/systemd/timesync/synchronized").exists();
    if vouched {
        not_run("systemd-timesyncd vouches for the clock of this machine");
    }
    vouched
}

fn real_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Milliseconds since 1970 of a time in RFC 3339.
fn at(text: &str) -> i64 {
    spacebot::clock::Timestamp::parse_rfc3339(text).unwrap().0
}

/// The made-up clock: a file that the library reads at each look at the time.
struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    fn of(home: &Home, library: PathBuf) -> Self {
        Self { library, file: home.folder().join("clock") }
    }

    /// From now on it says `now`, and goes on from there.
    fn set(&self, now: i64) {
        let offset = now - real_now();
        let sign = if offset < 0 { '-' } else { '+' };
        let (seconds, rest) = (offset.abs() / SECOND, offset.abs() % SECOND);
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{sign}{seconds}.{rest:03}\n")).unwrap();
        // Never half a file.
        fs::rename(&next, &self.file).unwrap();
    }

    fn start<'a>(&self, home: &'a Home) -> Daemon<'a> {
        home.start_with(&[
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.as_os_str()),
            ("FAKETIME_NO_CACHE", OsStr::new("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", OsStr::new("1")),
            ("DONT_FAKE_MONOTONIC", OsStr::new("1")),
            ("NO_FAKE_STAT", OsStr::new("1")),
        ])
    }

    /// Sets it while the daemon runs, and has the daemon look at its jobs.
    fn jump(&self, daemon: &Daemon<'_>, now: i64) {
        self.set(now);
        self.look(daemon);
    }

    /// A new reminder, far away, is a reason to look.
    fn look(&self, daemon: &Daemon<'_>) {
        let mut client = daemon.client("somebody");
        let id = format!("look-{}", real_now());
        let answer = client.ask(&id, "remind me in 90 days to look up");
        assert!(answer.starts_with("I will remind you"), "{answer}");
        client.poll(1);
    }
}

/// Runs of the jobs of conversation `c`: their slots.
fn slots(home: &Home) -> Vec<i64> {
    let connection = Connection::open(home.database()).unwrap();
    let sql = "SELECT slot FROM cron_executions e JOIN cron_jobs j ON j.id = e.job_id
               WHERE j.delivery_target = 'webhook:c' ORDER BY slot";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// What the clock of the daemon says.
fn said_by(home: &Home) -> i64 {
    let sql = "SELECT received_at FROM inbox ORDER BY id DESC LIMIT 1";
    Connection::open(home.database()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn said(client: &mut Client, count: usize) -> Vec<String> {
    let started = Instant::now();
    while client.unasked.len() < count && started.elapsed() < DEADLINE {
        client.poll(5);
    }
    client.unasked.clone()
}

/// Waits for a while, in which nothing more is said than `count` things.
fn stays(client: &mut Client, count: usize) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(A_WHILE) {
        client.poll(1);
    }
    assert_eq!(client.unasked.len(), count, "{:?}", client.unasked);
}

fn ends_well(daemon: Daemon<'_>) -> String {
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_first_start_in_1970_answers_and_remembers_and_fires_when_the_clock_is_right() {
    let Some(library) = library() else { return };
    let home = Home::new("");
    let clock = Clock::of(&home, library);
    clock.set(5 * MINUTE);
    let daemon = clock.start(&home);
    let mut client = daemon.client("c");
    assert!(client.ask("1", "help").contains("remind"), "{:?}", client.said);
    assert!((5 * MINUTE..HOUR).contains(&said_by(&home)), "the clock is made up: {}", said_by(&home));
    assert!(client.ask("2", "remind me in 1 second to call Ann").starts_with("I will remind you"));
    stays(&mut client, 0);
    assert_eq!(slots(&home), Vec::<i64>::new(), "the clock is not trusted");
    clock.jump(&daemon, real_now());
    assert_eq!(said(&mut client, 1), ["Reminder: call Ann"]);
    assert!(client.ask("3", "remind me in 1 second to call Bob").starts_with("I will remind you"));
    assert_eq!(said(&mut client, 2)[1], "Reminder: call Bob");
    let log = ends_well(daemon);
    assert!(log.contains("no job runs: the clock says"), "{log}");
}

#[test]
fn a_board_that_wakes_in_1970_or_an_hour_early_waits_for_the_right_time() {
    let Some(library) = library() else { return };
    if is_vouched_for() {
        return;
    }
    for (number, wrong) in [0, real_now() - HOUR].into_iter().enumerate() {
        let home = Home::new("");
        let clock = Clock::of(&home, library.clone());
        // The slot is two hours ago when the power fails, and nobody has looked: the clock was just set.
        clock.set(real_now() - 3 * HOUR);
        let daemon = clock.start(&home);
        let mut client = daemon.client("c");
        client.ask("1", "remind me in 1 hour to call Ann");
        clock.set(real_now());
        client.ask("2", "help");
        client.poll(1);
        assert!(client.unasked.is_empty(), "{:?}", client.unasked);
        daemon.kill();
        clock.set(wrong);
        let daemon = clock.start(&home);
        assert!(client.ask("3", "help").contains("remind"), "{number}");
        stays(&mut client, 0);
        assert_eq!(slots(&home), Vec::<i64>::new(), "{number}");
        clock.jump(&daemon, real_now() + 5 * SECOND);
        assert_eq!(said(&mut client, 1), ["Reminder: call Ann"], "{number}");
        stays(&mut client, 1);
        assert!(ends_well(daemon).contains("no job runs: the clock says"), "{number}");
    }
}

#[test]
fn ten_years_ahead_a_job_runs_at_most_once_and_nothing_runs_twice_on_the_way_back() {
    let Some(library) = library() else { return };
    if is_vouched_for() {
        return;
    }
    let home = Home::new("");
    let clock = Clock::of(&home, library);
    let now = real_now();
    clock.set(now);
    let daemon = clock.start(&home);
    let mut client = daemon.client("c");
    client.ask("1", "remind me every hour to breathe");
    client.poll(1);
    daemon.kill();
    clock.set(now + 10 * YEAR + MINUTE);
    let daemon = clock.start(&home);
    assert!(client.ask("2", "help").contains("remind"));
    assert_eq!(said(&mut client, 1), ["Reminder: breathe"], "the last of ten years");
    stays(&mut client, 1);
    let there = slots(&home);
    assert!(there.len() == 1 && there[0] > now + 10 * YEAR - HOUR, "{there:?}");
    // Back: these years have been written, so the clock is in the past now.
    clock.jump(&daemon, now + 2 * HOUR);
    assert!(client.ask("3", "help").contains("remind"));
    stays(&mut client, 1);
    assert_eq!(slots(&home), there);
    clock.jump(&daemon, there[0] + HOUR + MINUTE);
    said(&mut client, 2);
    let slots = slots(&home);
    assert!(slots.len() == 2 && slots[1] > slots[0], "{slots:?}");
    ends_well(daemon);
}

/// A job at half past two in Berlin, and what is made of a night with two of them or none.
#[test]
fn a_job_at_half_past_two_runs_once_in_both_nights_of_the_changed_hour() {
    let Some(library) = library() else { return };
    let nights = [
        // 02:30 comes at 00:30Z and again at 01:30Z.
        ("2026-10-24T22:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"], "2026-10-26T01:30:00Z"),
        // 02:00 is followed by 03:00, at 01:00Z.
        ("2027-03-27T22:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-28T01:30:00Z"], "2027-03-29T00:30:00Z"),
    ];
    for (evening, moments, next) in nights {
        let home = Home::new("[defaults]\ntimezone = \"Europe/Berlin\"\n");
        let clock = Clock::of(&home, library.clone());
        clock.set(at(evening));
        let daemon = clock.start(&home);
        let mut client = daemon.client("c");
        let answer = client.ask("1", "remind me every day at 2:30 to turn over");
        assert!(answer.starts_with("I will remind you"), "{answer}");
        client.poll(1);
        for moment in moments {
            clock.jump(&daemon, at(moment) - 2 * SECOND);
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(A_WHILE) {
                client.poll(1);
            }
        }
        assert_eq!(slots(&home).len(), 1, "{evening}: {:?}", slots(&home));
        assert_eq!(client.unasked, ["Reminder: turn over"], "{evening}");
        clock.jump(&daemon, at(next) - 2 * SECOND);
        said(&mut client, 2);
        assert_eq!(slots(&home)[1..], [at(next)], "{evening}: the next night is as ever");
        ends_well(daemon);
    }
}

#[test]
fn a_sleep_of_eight_hours_costs_no_waiting_turn_and_makes_up_for_one_slot() {
    let Some(library) = library() else { return };
    let (asked, was_asked) = bounded(1);
    let (answer, may_answer) = bounded::<()>(1);
    let double = Double::answering(move |_| {
        asked.send(()).ok(); // the test may be over
        may_answer.recv_timeout(DEADLINE).ok();
        calls(&[("reply", json!({ "content": "good morning" }))])
    });
    let home = Home::new(&config(&double, ""));
    let clock = Clock::of(&home, library.clone());
    let now = real_now();
    clock.set(now);
    let daemon = clock.start(&home);
    let mut client = daemon.client("turn");
    client.send("1", "good night");
    was_asked.recv_timeout(DEADLINE).unwrap();
    // Somebody waits at the door for two seconds of the other clock.
    let mut poller = daemon.client("nobody");
    let begun = Instant::now();
    let polled = std::thread::spawn(move || poller.poll(2));
    clock.set(now + 8 * HOUR);
    polled.join().unwrap();
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
    assert_eq!(daemon.status()["processes"].as_array().map(Vec::len), Some(1), "the turn waits on");
    answer.send(()).unwrap();
    assert_eq!(client.answer("1"), "good morning");
    ends_well(daemon);

    let home = Home::new("");
    let clock = Clock::of(&home, library);
    clock.set(now);
    let daemon = clock.start(&home);
    let mut client = daemon.client("c");
    client.ask("1", "remind me every hour to drink");
    client.poll(1);
    clock.jump(&daemon, now + 8 * HOUR + MINUTE);
    assert_eq!(said(&mut client, 1), ["Reminder: drink"]);
    stays(&mut client, 1);
    let slots = slots(&home);
    assert!(slots.len() == 1 && slots[0] > now + 8 * HOUR - MINUTE, "the last of eight: {slots:?}");
    eventually("it rests", DEADLINE, || daemon.status()["processes"].as_array().is_some_and(Vec::is_empty));
    ends_well(daemon);
}
