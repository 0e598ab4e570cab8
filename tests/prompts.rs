//! What a model is asked, as it arrives at the provider: each kind of process by a fixture in
//! `tests/fixtures/prompts` (`UPDATE=1` writes anew what was asked), and over a long conversation the
//! bytes before the volatile tail.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use daemon::{DEADLINE, Daemon, Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{At, Double, Request, Say};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::conversation::{Conversations, EarlierRoom};
use spacebot::db::Db;
use spacebot::id::{ConversationId, InstanceId};
use spacebot::message::{Earlier, Inbound};

fn reply(text: &str) -> Say {
    calls(&[("reply", json!({ "content": text }))])
}

fn is_channel(request: &Request) -> bool {
    offers(request, "spawn_worker")
}

/// Waits until nothing runs beside the turns.
fn rest(daemon: &Daemon<'_>) {
    eventually("it comes to rest", DEADLINE, || {
        daemon.status()["processes"].as_array().is_some_and(Vec::is_empty)
    });
}

// ---- a request as a text ----------------------------------------------------------------------------

/// The content of a message, and the calls in it.
fn words(message: &Value) -> String {
    let mut text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(parts) if parts.iter().all(|part| part["text"].is_string()) => {
            parts.iter().map(|part| part["text"].as_str().unwrap()).collect::<Vec<_>>().join("\n-- part\n")
        }
        other => other.to_string(),
    };
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        write!(text, "\ncalls {call}").unwrap();
    }
    text
}

/// Everything that was asked, for people to read: what of the JSON is neither tool nor message first.
fn shown(request: &Request, home: &Home) -> String {
    let mut rest = request.json.clone();
    let object = rest.as_object_mut().unwrap();
    object.remove("messages");
    let tools = object.remove("tools").unwrap_or_default();
    let mut text = format!("{}\n\n==== parameters\n{}\n", request.path, pretty(&rest));
    for tool in tools.as_array().into_iter().flatten() {
        let function = &tool["function"];
        let schema = pretty(&function["parameters"]);
        let name = function["name"].as_str().unwrap();
        let description = function["description"].as_str().unwrap_or_default();
        write!(text, "\n==== tool {name}\n{description}\n{schema}\n").unwrap();
    }
    for message in messages(request) {
        write!(text, "\n==== {}\n{}\n", message["role"].as_str().unwrap(), words(&message)).unwrap();
    }
    let text = text.replace(&*home.folder().to_string_lossy(), "HOME");
    // Fixtures are text files: no line ends in a blank.
    let lines: Vec<_> = timeless(&text).lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

/// Shapes of what changes from run to run (`0` is a digit), and what stands for it; the longer
/// ones first.
const VOLATILE: &[(&str, &str)] = &[
    ("0000-00-00T00:00:00.000Z", "TIME"),
    ("0000-00-00T00:00:00.00Z", "TIME"),
    ("0000-00-00T00:00:00.0Z", "TIME"),
    ("0000-00-00T00:00:00Z", "TIME"),
    ("0000-00-00 00:00", "DATE HH:MM"),
    ("\n00:00 |", "\nHH:MM |"),
    ("running, 0 s", "running, N s"),
    ("running, 00 s", "running, N s"),
    // What runs in the background takes numbers too.
    ("branch:00", "branch:N"),
    ("branch:0", "branch:N"),
    ("worker:00", "worker:N"),
    ("worker:0", "worker:N"),
    ("\n0 min | ", "\nN min | "),
    ("\n00 min | ", "\nN min | "),
    (" | 0 min ago", " | just now"),
    ("here Monday", "here DAY"),
    ("here Tuesday", "here DAY"),
    ("here Wednesday", "here DAY"),
    ("here Thursday", "here DAY"),
    ("here Friday", "here DAY"),
    ("here Saturday", "here DAY"),
    ("here Sunday", "here DAY"),
];

fn timeless(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let found = VOLATILE.iter().find(|(shape, _)| has_shape(rest, shape));
        match found {
            Some((shape, name)) => {
                out.push_str(name);
                rest = &rest[shape.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(byte, shape): (u8, u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == shape,
    };
    text.len() >= shape.len()
        && text.is_char_boundary(shape.len())
        && text.bytes().zip(shape.bytes()).all(fits)
}

// ---- the fixtures -----------------------------------------------------------------------------------

const FIXTURES: [&str; 17] = [
    "branch",
    "channel_acts",
    "channel_company",
    "channel_direct",
    "channel_everything",
    "channel_result",
    "channel_summary",
    "compactor",
    "extraction",
    "ingestion",
    "scheduled",
    "skills_branch",
    "skills_channel",
    "skills_channel_acts",
    "skills_worker",
    "worker",
    "worker_task",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/prompts")
}

/// Compares what was asked with its fixture, or writes that.
#[derive(Default)]
struct Fixtures {
    wrong: Vec<String>,
}

impl Fixtures {
    fn check(&mut self, name: &str, double: &Double, home: &Home, which: impl Fn(&Request) -> bool) {
        let requests = double.requests();
        let Some(request) = requests.iter().find(|request| which(request)) else {
            let asked: Vec<_> = requests.iter().map(last_message).collect();
            panic!("{name} was never asked, but {asked:#?}");
        };
        assert!(FIXTURES.contains(&name), "{name} is not in the list");
        let (path, shown) = (folder().join(name).with_extension("txt"), shown(request, home));
        let written = fs::read_to_string(&path).unwrap_or_default();
        if written == shown {
            return;
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, shown).unwrap();
            return;
        }
        let pairs = written.lines().chain(std::iter::repeat("")).zip(shown.lines()).zip(1..);
        let differing = pairs.filter(|((written, shown), _)| written != shown).take(3);
        let lines: Vec<_> = differing
            .map(|((written, shown), line)| format!("  line {line}: {written:?}\n     now: {shown:?}"))
            .collect();
        self.wrong.push(format!("{name}.txt is otherwise:\n{}", lines.join("\n")));
    }

    fn end(self) {
        assert!(
            self.wrong.is_empty(),
            "{}\nif that is meant: UPDATE=1 cargo test --test prompts, and read the difference",
            self.wrong.join("\n")
        );
    }
}

/// A door that the double waits at, so that what is asked meanwhile is the same in every run.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().unwrap();
        let (_open, time_out) = self.0.1.wait_timeout_while(open, DEADLINE, |open| !*open).unwrap();
        assert!(!time_out.timed_out(), "the door stays shut");
    }
}

/// In a conversation in company that the webhook cannot have, after what was said there before; the daemon finds
/// it at its next start.
fn is_said_in_company(home: &Home, sender: &str, text: &str) {
    let db = Db::open_inline(&home.database(), None).unwrap();
    let clock = SystemClock::shared();
    let message = Inbound {
        instance: InstanceId::new("webhook"),
        platform_id: format!("room/{sender}"),
        conversation: ConversationId::new("webhook:room"),
        agent: None,
        sender_id: sender.to_lowercase(),
        sender_name: sender.to_owned(),
        content: text.to_owned(),
        sent_at: clock.now(),
        direct: false,
        addressed: true,
        place: "webhook / room".to_owned(),
    };
    let line = |at, sender: &str, text: &str| Earlier {
        sender_name: sender.to_owned(),
        at: Some(Timestamp(at)),
        text: text.to_owned(),
        own: sender == "pibot",
    };
    let earlier = vec![
        line(1_767_254_400_000, "Una", "who swept last week?"),
        line(1_767_254_460_000, "pibot", "I swept it, as Kim wanted <status>"),
    ];
    let room = EarlierRoom { lines: 50, bytes: 4096 };
    Conversations::new(db, clock).receive_after(message, earlier, room).unwrap().expect("new");
}

/// Plays everybody in the house.
fn house(request: &Request, branch_is_there: &Door, worker_is_there: &Door) -> Say {
    let last = last_message(request);
    let all = request.json["messages"].to_string();
    if offers(request, "memory_persistence_complete") {
        return calls(&[(
            "memory_persistence_complete",
            json!({ "outcome": "no_memories", "saved_memory_ids": [], "reason": "nothing to keep" }),
        )]);
    }
    if offers(request, "set_outcome") {
        return calls(&[("set_outcome", json!({ "content": "it is late" }))]);
    }
    if is_channel(request) {
        return match () {
            () if last.contains("<result") => reply("told"),
            // First, because the room is told of the other conversations too.
            () if last.contains("the floor") => calls(&[
                ("spawn_worker", json!({ "task": "Sweep the floor of the hall." })),
                ("branch", json!({ "description": "Whose turn is it?" })),
                ("reply", json!({ "content": "begun" })),
            ]),
            () if last.contains("tell me every hour") => calls(&[(
                "cron",
                json!({ "action": "create", "id": "hour", "prompt": "Report the hour.", "interval_secs": 3600 }),
            )]),
            () if last.contains("good evening") => reply("yes"),
            () if last.contains("think of the eggs") => {
                calls(&[("branch", json!({ "description": "How many eggs are there?" }))])
            }
            () if all.contains("think of the eggs") && last.contains("started") => {
                branch_is_there.wait();
                reply("begun")
            }
            () => reply("yes"),
        };
    }
    match () {
        () if last.contains("How many eggs") => {
            branch_is_there.open();
            Say::text("twelve eggs")
        }
        () if last.contains("Whose turn") => {
            worker_is_there.wait();
            Say::text("it is Bob's turn")
        }
        () if all.contains("Sweep the floor") => {
            worker_is_there.open();
            Say::text("x").hang(At::Start)
        }
        () if last.contains("noted") => Say::text("done"),
        () => calls(&[("set_status", json!({ "status": "done", "kind": "outcome" }))]),
    }
}

#[test]
fn each_process_is_asked_what_its_fixture_says() {
    let (branch_is_there, worker_is_there) = (Door::default(), Door::default());
    let double = Double::recording(move |request| house(request, &branch_is_there, &worker_is_there));
    let more = "[[bindings]]\nagent_id = \"main\"\nchannel = \"webhook\"\nchannel_ids = [\"hands\"]\ndelegation = \"direct\"\n\
                   [defaults.ingestion]\npoll_interval_secs = 1\n";
    let home = Home::new(&format!("{}{more}", config(&double, "timezone = \"Asia/Kathmandu\"")));
    let mut fixtures = Fixtures::default();

    let daemon = home.start();
    let mut kitchen = daemon.client("kitchen");
    kitchen.ask("1", "good morning");
    kitchen.ask("2", "think of the eggs");
    kitchen.hear("told");
    rest(&daemon);
    fixtures.check("channel_direct", &double, &home, is_channel);
    fixtures.check("channel_result", &double, &home, |request| last_message(request).contains("<result"));
    fixtures.check("branch", &double, &home, |request| last_message(request).contains("How many eggs"));
    daemon.client("hands").ask("1", "good evening");
    fixtures.check("channel_acts", &double, &home, |request| last_message(request).contains("good evening"));

    let output = home
        .command(&["task", "create", "Water the plants", "--description", "Not the cactus.", "--ready"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let of_task = |request: &Request| last_message(request).contains("Water the plants");
    eventually("the task is begun", DEADLINE, || double.requests().iter().any(of_task));
    rest(&daemon);
    fixtures.check("worker_task", &double, &home, of_task);

    let ingest = home.folder().join("agents/main/workspace/ingest");
    fs::create_dir_all(&ingest).unwrap();
    let staged = home.folder().join("notes.txt");
    fs::write(&staged, "The cellar key is blue.\n").unwrap();
    let reads = |request: &Request| request.json["messages"].to_string().contains("cellar key");
    let handed = home.command(&["ingest"]).arg(&staged).output().unwrap();
    assert!(handed.status.success(), "{}", String::from_utf8_lossy(&handed.stderr));
    eventually("the file is read", DEADLINE, || double.requests().iter().any(reads));
    rest(&daemon);
    fixtures.check("ingestion", &double, &home, reads);

    kitchen.ask("3", "tell me every hour what hour it is");
    daemon.stop();
    // One of the job's slots came five seconds ago.
    let anchor = SystemClock::shared().now().0 - 3_605_000;
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    assert_eq!(connection.execute("UPDATE cron_jobs SET anchor = ?1", [anchor]).unwrap(), 1);
    let daemon = home.start();
    eventually("the job runs", DEADLINE, || {
        double.requests().iter().any(|request| offers(request, "set_outcome"))
    });
    rest(&daemon);
    fixtures.check("scheduled", &double, &home, |request| offers(request, "set_outcome"));
    daemon.stop();

    is_said_in_company(&home, "Una", "somebody should do the floor of the hall");
    is_said_in_company(&home, "Bob", "yes, the floor is dirty");
    let daemon = home.start();
    let told = |request: &Request| last_message(request).contains("Bob's turn");
    eventually("the branch is told", DEADLINE, || double.requests().iter().any(told));
    fixtures
        .check("channel_company", &double, &home, |request| last_message(request).contains("the floor is"));
    fixtures.check("worker", &double, &home, |request| {
        !is_channel(request) && last_message(request).contains("Sweep the floor")
    });
    fixtures.check("channel_everything", &double, &home, told);
    drop(daemon);
    fixtures.end();
}

#[test]
fn what_is_asked_about_a_full_window_is_what_its_fixture_says() {
    let double = Double::recording(|request| match () {
        () if is_channel(request) => reply("yes, I see"),
        () if offers(request, "memory_save") => Say::text("done"),
        () => Say::text("They talked about many things."),
    });
    let home = Home::new(&config(&double, "history_messages = 20"));
    let daemon = home.start();
    let mut client = daemon.client("c");
    for turn in 0..9 {
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
        rest(&daemon);
    }
    drop(daemon);
    let mut fixtures = Fixtures::default();
    let saves = |request: &Request| offers(request, "memory_save");
    fixtures.check("compactor", &double, &home, |request| !is_channel(request) && !saves(request));
    fixtures.check("extraction", &double, &home, |request| !is_channel(request) && saves(request));
    fixtures.check("channel_summary", &double, &home, |request| {
        is_channel(request) && request.json["messages"].to_string().contains("many things")
    });
    fixtures.end();
}

#[test]
fn where_there_are_skills_each_process_is_asked_what_its_fixture_says() {
    let (branch_is_there, worker_is_there) = (Door::default(), Door::default());
    let double = Double::recording(move |request| house(request, &branch_is_there, &worker_is_there));
    let more = "[[bindings]]\nagent_id = \"main\"\nchannel = \"webhook\"\nchannel_ids = [\"hands\"]\ndelegation = \"direct\"\n\
                   [defaults.skills]\nworkspace = true\n";
    let home = Home::new(&format!("{}{more}", config(&double, "timezone = \"Asia/Kathmandu\"")));
    let long = "Keeps the house in order, one room after the other. ".repeat(5);
    for (place, name, description) in [
        ("skills", "sweep", "How a floor is swept."),
        ("skills", "house", &long),
        ("agents/main/workspace/skills", "eggs", "How eggs are counted."),
    ] {
        let folder = home.folder().join(place).join(name);
        fs::create_dir_all(&folder).unwrap();
        let text = format!("---\nname: {name}\ndescription: {description}\n---\nBody\n");
        fs::write(folder.join("SKILL.md"), text).unwrap();
    }
    let daemon = home.start();
    let mut kitchen = daemon.client("kitchen");
    kitchen.ask("1", "think of the eggs");
    kitchen.hear("told");
    rest(&daemon);
    daemon.client("hands").ask("1", "good evening");
    kitchen.ask("2", "somebody should do the floor of the hall");
    let sweeps =
        |request: &Request| !is_channel(request) && last_message(request).contains("Sweep the floor");
    eventually("the worker is asked", DEADLINE, || double.requests().iter().any(sweeps));
    let mut fixtures = Fixtures::default();
    fixtures.check("skills_channel", &double, &home, is_channel);
    fixtures
        .check("skills_branch", &double, &home, |request| last_message(request).contains("How many eggs"));
    fixtures.check("skills_channel_acts", &double, &home, |request| {
        last_message(request).contains("good evening")
    });
    fixtures.check("skills_worker", &double, &home, sweeps);
    drop(daemon);
    fixtures.end();
}

#[test]
fn no_fixture_is_left_over() {
    let file = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut files: Vec<_> = fs::read_dir(folder()).unwrap().map(file).collect();
    files.sort();
    assert_eq!(files, FIXTURES.map(|name| format!("{name}.txt")));
}

#[test]
fn what_changes_from_run_to_run_has_a_name() {
    let text = "at 2026-11-21T10:00:00.25Z, here Friday 2026-11-21 15:45\n10:02 | kind\nrunning, 13 s: 12:3";
    assert_eq!(timeless(text), "at TIME, here DAY DATE HH:MM\nHH:MM | kind\nrunning, N s: 12:3");
}

// ---- the prefix -------------------------------------------------------------------------------------

/// The bytes of a request from its list of messages on, cut behind each message but the last: where the
/// volatile tail begins.
fn stable(request: &Request) -> &str {
    let body = &request.body;
    let list = body.find("\"messages\":[").expect("messages") + "\"messages\":[".len();
    let (mut depth, mut quoted, mut escaped, mut last) = (0_usize, false, false, list);
    for (place, byte) in body.bytes().enumerate().skip(list) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                if depth == 0 {
                    last = place;
                }
                depth += 1;
            }
            b'}' => depth -= 1,
            b']' if depth == 0 => break,
            b']' => depth -= 1,
            _ => {}
        }
    }
    &body[list..last]
}

/// Which turns do not begin with all that the turn before began with.
fn breaks(turns: &[Request]) -> Vec<usize> {
    let new = |pair: &[Request]| {
        !stable(&pair[1]).starts_with(stable(&pair[0])) || pair[0].json["tools"] != pair[1].json["tools"]
    };
    turns.windows(2).zip(1..).filter(|(pair, _)| new(pair)).map(|(_, turn)| turn).collect()
}

#[test]
fn over_fifty_turns_the_prefix_changes_only_with_its_source() {
    const TURNS: usize = 50;
    const EDITED_BEFORE: usize = 20;
    let summarised = Arc::new(AtomicBool::new(false));
    let sets = summarised.clone();
    let double = Double::recording(move |request| match () {
        () if is_channel(request) => reply("yes, I see"),
        () if offers(request, "memory_save") => Say::text("done"),
        () => {
            sets.store(true, Ordering::SeqCst);
            Say::text("They talked about many things.")
        }
    });
    // Pressed with its 80th line, in the 40th turn.
    let home = Home::new(&config(&double, "history_messages = 100"));
    let daemon = home.start();
    let mut client = daemon.client("c");
    let (mut edits, mut swaps) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        if turn == EDITED_BEFORE {
            let reloads = || daemon.status()["config"]["reloads"].as_u64().unwrap();
            let before = reloads();
            fs::write(home.folder().join("agents/main/SOUL.md"), "You are calm.\n").unwrap();
            kill(daemon.pid(), Signal::SIGHUP).unwrap();
            eventually("the file is read", DEADLINE, || reloads() > before);
            edits.push(turn);
        }
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
        rest(&daemon);
        if summarised.swap(false, Ordering::SeqCst) {
            swaps.push(turn + 1);
        }
    }
    drop(daemon);
    let turns: Vec<Request> = double.requests().into_iter().filter(is_channel).collect();
    assert_eq!(turns.len(), TURNS);
    assert_eq!((edits.len(), swaps.len()), (1, 1), "one edit, one compaction");
    let sources: Vec<usize> = edits.iter().chain(&swaps).copied().collect();
    assert_eq!(breaks(&turns), sources, "turns that begin otherwise than the one before");
    // Of the two changes, each changes its own part and nothing else.
    let of = |turn: usize| messages(&turns[turn]);
    let (before, after) = (of(EDITED_BEFORE - 1), of(EDITED_BEFORE));
    assert!(after[0].to_string().contains("You are calm."));
    assert_eq!(before[1..before.len() - 1], after[1..before.len() - 1]);
    let (before, after) = (of(swaps[0] - 1), of(swaps[0]));
    assert_eq!(before[0], after[0], "the system prompt");
    assert!(after[1].to_string().contains("<summary "), "{}", after[1]);
    let kept = &after[2..after.len() - 3];
    assert!(!kept.is_empty() && before[1..].windows(kept.len()).any(|lines| lines == kept));
    // The clock moves all the while, and is behind all of it.
    assert!(turns.iter().all(|turn| !stable(turn).contains("</status>") && turn.body.contains("</status>")));
}
