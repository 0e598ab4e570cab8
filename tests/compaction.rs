//! Long conversations with the whole binary and a double for the model: what leaves the window is
//! summarised beside the turns, or leaves without a model, and is found again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::time::{Duration, Instant};

use daemon::{Client, DEADLINE, Daemon, Home, eventually};
use llm_double::script::offers;
use llm_double::{Answer, At, Body, Double, Request, Say, ToolCall, WireFormat};
use serde_json::{Value, json};
use spacebot::clock::SystemClock;
use spacebot::conversation::{Conversations, Line, Window};
use spacebot::db::Db;
use spacebot::id::ConversationId;
use spacebot::prompts;

/// With `history_messages = 20`: the window is pressed with its 16th message, and an emergency with its 19th.
const SMALL: &str = "history_messages = 20\n";

fn home(double: &Double, defaults: &str, compaction: &str) -> Home {
    let url = double.base_url("p", WireFormat::OpenAi);
    Home::new(&format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"{url}\"\napi_key = \"k\"\n\
         [defaults]\n{defaults}[defaults.routing]\nchannel = \"double/m\"\nbranch = \"double/m\"\n\
         worker = \"double/m\"\n[defaults.memory_persistence]\nenabled = false\n[defaults.compaction]\n{compaction}"
    ))
}

fn call(name: &str, arguments: &Value) -> Say {
    let call = ToolCall { id: "call_1".to_owned(), name: name.to_owned(), arguments: arguments.to_string() };
    Say::new(Body::Answer(Answer { calls: vec![call], ..Answer::default() }))
}

/// What asks: told by its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Channel,
    Branch,
    Memories,
    Summary,
}

fn asks(request: &Request) -> Asks {
    match () {
        () if offers(request, "reply") => Asks::Channel,
        () if offers(request, "channel_recall") => Asks::Branch,
        () if offers(request, "memory_save") => Asks::Memories,
        () => Asks::Summary,
    }
}

fn of(double: &Double, kind: Asks) -> Vec<Request> {
    double.requests().into_iter().filter(|request| asks(request) == kind).collect()
}

/// Each text of a request with the role that says it, in order; the system prompt is left out.
fn texts(request: &Request) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for message in request.json["messages"].as_array().unwrap() {
        let role = message["role"].as_str().unwrap();
        if role == "system" {
            continue;
        }
        match &message["content"] {
            Value::String(text) => texts.push((role.to_owned(), text.clone())),
            parts => {
                let parts = parts.as_array().into_iter().flatten();
                texts.extend(parts.map(|part| (role.to_owned(), part["text"].as_str().unwrap().to_owned())));
            }
        }
    }
    texts
}

fn summaries(request: &Request) -> Vec<String> {
    texts(request).into_iter().map(|(_, text)| text).filter(|text| text.starts_with("<summary ")).collect()
}

fn reply() -> Say {
    call("reply", &json!({ "content": "yes, I see" }))
}

fn nothing_to_keep() -> Say {
    call("memory_persistence_complete", &json!({ "outcome": "no_memories", "reason": "small talk" }))
}

/// Answers everybody, and saves nothing.
fn obliging(request: &Request) -> Say {
    match asks(request) {
        Asks::Channel => reply(),
        Asks::Summary => Say::text("They talked about many things."),
        Asks::Branch => Say::text("done"),
        Asks::Memories => nothing_to_keep(),
    }
}

/// Waits until nothing runs beside the turns.
fn rest(daemon: &Daemon<'_>) {
    eventually("it comes to rest", DEADLINE, || {
        daemon.status()["processes"].as_array().is_some_and(Vec::is_empty)
    });
}

fn talk(daemon: &Daemon<'_>, client: &mut Client, turns: std::ops::Range<usize>) {
    for turn in turns {
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
        rest(daemon);
    }
}

fn here() -> ConversationId {
    ConversationId::new("webhook:c")
}

fn stored(home: &Home) -> Conversations {
    Conversations::new(Db::open_inline(&home.database(), None).unwrap(), SystemClock::shared())
}

fn window(home: &Home) -> Window {
    stored(home).window(&here()).unwrap()
}

fn everything(home: &Home) -> Vec<Line> {
    stored(home).find(&here(), &[], None, 10_000).unwrap().lines
}

/// All that was said stands in the window or behind a summary.
fn assert_nothing_is_lost(home: &Home, turns: usize) {
    let said: Vec<_> =
        everything(home).into_iter().filter(|line| line.content.starts_with("this is")).collect();
    let expected: Vec<_> = (0..turns).map(|turn| format!("this is message {turn}")).collect();
    assert_eq!(said.iter().map(|line| line.content.clone()).collect::<Vec<_>>(), expected);
    let Window { summaries, lines, .. } = window(home);
    let covered: u64 = summaries.iter().map(|summary| summary.lines).sum();
    assert_eq!(covered as usize + lines.len(), everything(home).len());
}

#[test]
fn a_summary_stands_at_the_head_and_the_prefix_stays_the_same_in_between() {
    let double = Double::recording(obliging);
    let home = home(&double, "history_messages = 40\n", "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    talk(&daemon, &mut client, 0..45);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let made = of(&double, Asks::Summary);
    let turns = of(&double, Asks::Channel);
    assert_eq!((turns.len(), made.len()), (45, 6), "90 messages, each time ten of 32 leave");
    for request in &made {
        assert_eq!(request.json["tools"].as_array().map_or(0, Vec::len), 0);
        let words = texts(request).pop().unwrap().1;
        assert_eq!(words.matches("<message from=").count(), 10, "{words}");
        assert!(words.contains("from=\"Spacebot (you)\"") && words.contains("from=\"una\""), "{words}");
    }
    let mut moved = 0;
    for pair in turns.windows(2) {
        let (before, after) = (texts(&pair[0]), texts(&pair[1]));
        // The last text of a turn holds the clock and the status, and goes.
        let (before, after) = (&before[..before.len() - 1], &after[..after.len() - 1]);
        let (old, new) = (summaries(&pair[0]), summaries(&pair[1]));
        assert_eq!(new[..old.len()], old, "a summary is put behind the others, which stay the same bytes");
        if old.len() == new.len() {
            assert_eq!(before, &after[..before.len()], "nothing else moves the window");
        } else {
            moved += 1;
            assert_eq!(new.len(), old.len() + 1);
            let newest = new.last().unwrap();
            assert!(newest.contains("messages=\"10\">They talked about many things.</summary>"), "{newest}");
            assert!(after[new.len()].1.contains("this is message"), "then a person speaks");
        }
        assert_eq!(pair[0].json["messages"][0], pair[1].json["messages"][0], "the system prompt stays");
    }
    assert_eq!(moved, 6);
    // What a turn did with its tools is not in the history: no cut can part a call from its result.
    for turn in &turns {
        let tools = turn.json["messages"].to_string();
        assert!(!tools.contains("tool_calls") && !tools.contains("\"role\":\"tool\""), "{tools}");
    }
    assert_nothing_is_lost(&home, 45);
}

#[test]
fn a_summary_that_hangs_delays_no_answer_and_an_emergency_needs_none() {
    let double = Double::recording(|request| match asks(request) {
        Asks::Summary => Say::text("never").hang(At::Start),
        _ => obliging(request),
    });
    let home = home(&double, SMALL, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    for turn in 0..8 {
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
    }
    double.wait_until_hanging(1, DEADLINE);
    let begun = Instant::now();
    for turn in 8..20 {
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(of(&double, Asks::Summary).len(), 1, "one at a time");
    let last = of(&double, Asks::Channel).pop().unwrap();
    let markers = summaries(&last);
    assert!(markers.iter().all(|marker| marker.contains(prompts::notice("summary_missing"))), "{markers:?}");
    // Fewer than 19 lines, and what this turn is about.
    assert!(!markers.is_empty() && texts(&last).len() - markers.len() <= 18 + 1, "{last:?}");
    assert_nothing_is_lost(&home, 20);
    // It does not hold the stop either.
    let begun = Instant::now();
    let (status, log) = daemon.stop();
    assert!(status.success() && begun.elapsed() < Duration::from_secs(3), "{:?} {log}", begun.elapsed());
}

#[test]
fn a_failing_summary_changes_nothing_and_is_not_asked_for_at_every_turn() {
    let double = Double::recording(|request| match asks(request) {
        Asks::Summary => Say::error(400, "invalid_request_error", "no"),
        _ => obliging(request),
    });
    let home = home(&double, SMALL, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    talk(&daemon, &mut client, 0..9);
    assert_eq!(of(&double, Asks::Summary).len(), 1, "the next try is later");
    let Window { summaries, lines, generation } = window(&home);
    assert_eq!((summaries.len(), lines.len(), generation), (0, 18, 0));
    talk(&daemon, &mut client, 9..11);
    let Window { summaries, lines, .. } = window(&home);
    assert_eq!((summaries.len(), lines.len()), (1, 12), "half of twenty have left before the next turn");
    assert!(summaries[0].text.is_none() && summaries[0].awaited);
    assert_eq!(of(&double, Asks::Summary).len(), 1);
    assert_nothing_is_lost(&home, 11);
    drop(daemon);
}

#[test]
fn without_any_model_the_window_is_bounded_all_the_same() {
    let home = Home::new(&format!("[defaults]\n{SMALL}"));
    let daemon = home.start();
    let mut client = daemon.client("c");
    talk(&daemon, &mut client, 0..30);
    let Window { summaries, lines, .. } = window(&home);
    assert!(lines.len() <= 20, "{}", lines.len());
    assert_eq!(summaries.len(), 1, "one marker for all");
    assert!(summaries[0].text.is_none() && !summaries[0].awaited, "nobody waits for a summary");
    assert!(!stored(&home).any_unread(&here()).unwrap(), "nor takes memories");
    assert_nothing_is_lost(&home, 30);
    drop(daemon);
}

#[test]
fn a_kill_while_a_summary_is_made_loses_nothing_and_the_next_message_makes_it_again() {
    let double = Double::recording(move |request| match asks(request) {
        Asks::Summary if !request.json.to_string().contains("this is message 4") => {
            Say::text("never").hang(At::Start)
        }
        _ => obliging(request),
    });
    let home = home(&double, SMALL, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    for turn in 0..8 {
        client.ask(&format!("{turn}"), &format!("this is message {turn}"));
    }
    double.wait_until_hanging(1, DEADLINE);
    daemon.kill();
    assert_eq!(window(&home).lines.len(), 16, "either before or after the swap");
    assert_nothing_is_lost(&home, 8);
    let daemon = home.start();
    assert!(of(&double, Asks::Summary).len() == 1, "nothing runs without a new message");
    let mut client = daemon.client("c");
    client.ask("8", "this is message 8");
    // At 90 % half of them are summarised, to message 4 this time, and nothing hangs.
    eventually("the summary is there", DEADLINE, || {
        window(&home).summaries.first().is_some_and(|summary| summary.text.is_some())
    });
    rest(&daemon);
    assert_nothing_is_lost(&home, 9);
    drop(daemon);
}

#[test]
fn what_has_left_is_found_word_for_word_and_leaves_memories_behind() {
    const SECRET: &str = "this is the odd word: Quagga-Ümlaut";
    let double = Double::recording(|request| {
        let last = texts(request).pop().map(|(_, text)| text).unwrap_or_default();
        let saved = request.json.to_string().contains("{\\\"saved\\\":");
        match asks(request) {
            Asks::Memories if last.contains(SECRET) && !saved => {
                call("memory_save", &json!({ "content": "The odd word is Quagga", "importance": 0.8 }))
            }
            Asks::Memories if saved => {
                let messages = request.json.to_string();
                let id = messages
                    .split("\\\"saved\\\":\\\"")
                    .nth(1)
                    .unwrap()
                    .split('\\')
                    .next()
                    .unwrap()
                    .to_owned();
                let end = json!({ "outcome": "saved", "saved_memory_ids": [id], "reason": "the odd word" });
                call("memory_persistence_complete", &end)
            }
            Asks::Channel if last.contains("which word") => {
                call("branch", &json!({ "description": "find the odd word" }))
            }
            Asks::Channel if last.contains("<result") => {
                call("reply", &json!({ "content": format!("found {}", last.contains("Quagga-Ümlaut")) }))
            }
            Asks::Branch if request.json.to_string().contains("\"role\":\"tool\"") => {
                Say::text(if last.contains(SECRET) { "It was Quagga-Ümlaut" } else { "not there" })
            }
            Asks::Branch => {
                assert!(!last.contains(SECRET), "it is only in the archive");
                call("channel_recall", &json!({ "query": "WORD: quagga-ü", "limit": "3" }))
            }
            _ => obliging(request),
        }
    });
    let home = home(&double, SMALL, "");
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.ask("secret", SECRET);
    talk(&daemon, &mut client, 0..20);
    let memories = || {
        let db = Db::open_inline(&home.database(), None).unwrap();
        let sql = "SELECT group_concat(content || ' of ' || source) FROM memories";
        db.read(|connection| Ok(connection.query_row(sql, [], |row| row.get::<_, Option<String>>(0))?))
            .unwrap()
    };
    let memory = memories().expect("one was taken");
    assert!(memory.starts_with("The odd word is Quagga of agent:compactor:"), "{memory}");
    assert_eq!(memory.matches("Quagga").count(), 1, "once: {memory}");
    let turns = of(&double, Asks::Channel);
    assert!(!turns.last().unwrap().json.to_string().contains(SECRET), "it has left the window");
    client.send("which", "which word was it?");
    eventually("it is told", DEADLINE, || {
        client.poll(1);
        client.answers.values().flatten().any(|answer| answer == "found true")
    });
    // Nobody was told of the taking of memories.
    let told = of(&double, Asks::Channel).iter().any(|turn| turn.json.to_string().contains("compactor"));
    assert!(!told);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn memories_are_not_taken_where_that_is_switched_off() {
    let double = Double::recording(obliging);
    let home = home(&double, SMALL, "extract_memories = false\n");
    let daemon = home.start();
    let mut client = daemon.client("c");
    talk(&daemon, &mut client, 0..12);
    assert!(!of(&double, Asks::Summary).is_empty());
    assert_eq!(of(&double, Asks::Memories).len(), 0);
    drop(daemon);
}
