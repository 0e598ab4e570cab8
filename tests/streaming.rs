//! Answers that are seen while they are being written, by those who get them and by the operator, in the whole
//! binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daemon::{Daemon, Home};
use llm_double::script::{calls, config};
use llm_double::{At, Body, Double, Say, WireFormat};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const WORDS: &str = "Once upon a time there was a spider\nwho lived on a small \"board\" and wrote letters.";

fn reply(content: &str) -> Say {
    calls(&[("reply", json!({ "content": content }))])
}

/// One look at a conversation: what was said, and what is being written behind what was seen.
fn look(daemon: &Daemon<'_>, after: i64, seen: &(u64, String)) -> Value {
    let url = format!(
        "http://127.0.0.1:{}/poll/c?after={after}&wait=5&draft={}&from={}",
        daemon.home.webhook,
        seen.0,
        seen.1.len()
    );
    daemon::get(&url).1
}

/// Looks until `until` is content with what was seen; what it takes away from a look goes to `seen`.
fn follow(daemon: &Daemon<'_>, mut until: impl FnMut(&Value, &(u64, String)) -> bool) -> (u64, String) {
    let (started, mut seen) = (Instant::now(), (0, String::new()));
    while started.elapsed() < PATIENCE {
        let news = look(daemon, 0, &seen);
        if let Some(piece) = news["draft"].as_object() {
            let number = piece["number"].as_u64().unwrap();
            if number != seen.0 {
                seen = (number, String::new());
            }
            assert_eq!(piece["from"], seen.1.len(), "nothing is missed and nothing comes twice");
            seen.1.push_str(piece["content"].as_str().unwrap());
        }
        if until(&news, &seen) {
            return seen;
        }
    }
    panic!("not within {PATIENCE:?}; seen is {seen:?}");
}

#[test]
fn a_reply_is_seen_growing_and_is_said_once() {
    let double = Double::answering(|_| Say { pause: Some(Duration::from_millis(30)), ..reply(WORDS) });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    daemon.client("c").send("1", "tell me a story");
    let mut pieces = 0;
    let (_, grown) = follow(&daemon, |news, _| {
        pieces += usize::from(news["draft"].is_object());
        let said = news["messages"].as_array().unwrap();
        assert!(said.iter().all(|message| message["content"] == WORDS), "{said:?}");
        !said.is_empty()
    });
    assert!(pieces > 3, "it grew in {pieces} pieces");
    assert_eq!(grown, WORDS, "all of it was there before it was said");
    let mut client = daemon.client("c");
    client.answer("1");
    assert_eq!(client.said, [WORDS]);
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn what_was_seen_of_an_answer_that_broke_off_is_void_and_never_said() {
    let asked = AtomicUsize::new(0);
    let double = Double::answering(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => reply("A first try that comes to nothing at all").hang(At::Events(7)),
        _ => reply(WORDS),
    });
    let timeout = "read_timeout_secs = 1\n";
    let home = Home::new(&format!("[llm]\n{timeout}{}", config(&double, "")));
    let daemon = home.start();
    daemon.client("c").send("1", "tell me a story");
    let broken = follow(&daemon, |news, seen| {
        assert_eq!(news["messages"], json!([]));
        seen.1.contains("first try")
    });
    let mut client = daemon.client("c");
    assert_eq!(client.answer("1"), WORDS);
    assert_eq!(client.said, [WORDS], "{broken:?}");
    // The answer can be fetched a moment before the turn that wrote it is over, and its draft with it.
    daemon::eventually("the end of the draft", PATIENCE, || {
        look(&daemon, i64::MAX, &broken)["draft"].is_null()
    });
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn who_does_not_look_on_polls_as_ever() {
    let double = Double::answering(|_| Say { pause: Some(Duration::from_millis(5)), ..reply(WORDS) });
    let home = Home::new(&config(&double, ""));
    let daemon = home.start();
    daemon.client("c").send("1", "tell me a story");
    let url = format!("http://127.0.0.1:{}/poll/c?after=0&wait=20", daemon.home.webhook);
    let body = daemon::get(&url).1;
    assert_eq!((body["messages"][0]["content"].as_str(), &body["draft"]), (Some(WORDS), &Value::Null));
    let bad = format!("http://127.0.0.1:{}/poll/c?draft=x", daemon.home.webhook);
    assert_eq!(daemon::get(&bad).0, 400);
    let (status, _) = daemon.stop();
    assert!(status.success());
}

const KEY: &str = "k-of-the-double-0001";

/// What an Anthropic model says piece by piece: it thinks, speaks and calls tools.
fn streamed(thoughts: &[&str], words: &[&str], calls: &[(&str, &[&str])]) -> Say {
    let event = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let message = json!({ "type": "message", "id": "m1", "role": "assistant", "content": [], "model": "m",
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 10, "output_tokens": 1 } });
    let mut events = vec![event(json!({ "type": "message_start", "message": message }))];
    let mut index = 0;
    let mut block = |start: Value, deltas: Vec<Value>| {
        events.push(event(json!({ "type": "content_block_start", "index": index, "content_block": start })));
        for delta in deltas {
            events.push(event(json!({ "type": "content_block_delta", "index": index, "delta": delta })));
        }
        events.push(event(json!({ "type": "content_block_stop", "index": index })));
        index += 1;
    };
    if !thoughts.is_empty() {
        let deltas = thoughts.iter().map(|text| json!({ "type": "thinking_delta", "thinking": text }));
        block(json!({ "type": "thinking", "thinking": "" }), deltas.collect());
    }
    if !words.is_empty() {
        let deltas = words.iter().map(|text| json!({ "type": "text_delta", "text": text }));
        block(json!({ "type": "text", "text": "" }), deltas.collect());
    }
    for (tool, pieces) in calls {
        let deltas = pieces.iter().map(|json| json!({ "type": "input_json_delta", "partial_json": json }));
        block(json!({ "type": "tool_use", "id": "call_1", "name": tool, "input": {} }), deltas.collect());
    }
    let stop = json!({ "stop_reason": "tool_use", "stop_sequence": null });
    events.push(event(json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": 9 } })));
    events.push(event(json!({ "type": "message_stop" })));
    Say::new(Body::Events(events))
}

fn anthropic(double: &Double) -> String {
    let url = double.base_url("p", WireFormat::Anthropic);
    format!(
        "[llm.provider.double]\napi_type = \"anthropic\"\nbase_url = \"{url}\"\napi_key = \"{KEY}\"\n\
         [defaults.routing]\nchannel = \"double/m\"\nbranch = \"double/m\"\nworker = \"double/m\"\n"
    )
}

/// `spacebot watch` beside a daemon.
struct Watcher {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watcher {
    /// Looks on when this returns: nothing is missed.
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(&[&["watch"], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn until(&mut self, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.next().expect("it went on").unwrap();
            seen.push(line);
            if is_last(&seen[seen.len() - 1]) {
                return seen;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// So many look on over HTTP.
fn await_onlookers(daemon: &Daemon<'_>, count: u64) {
    daemon::eventually("onlookers", PATIENCE, || daemon.status()["onlookers"] == count);
}

#[test]
fn the_operator_sees_thoughts_words_arguments_and_tools_of_a_turn_in_their_order() {
    let double = Double::answering(|_| {
        let thoughts = ["They want ", "a story. The key is k-of-the-", "double-0001, I", " keep it."];
        let pieces = ["{\"cont", "ent\": \"Once up", "on a time\"}"];
        Say {
            pause: Some(Duration::from_millis(5)),
            ..streamed(&thoughts, &["Let me ", "write."], &[("reply", &pieces)])
        }
    });
    let home = Home::new(&anthropic(&double));
    let daemon = home.start();
    let mut watcher = Watcher::start(&home, &["--json", "--conversation", "webhook:c"]);
    let mut words = Watcher::start(&home, &["--agent", "main"]);
    await_onlookers(&daemon, 2);
    daemon.client("other").ask("1", "not for those who look at c");
    daemon.client("c").ask("1", "tell me a story");
    let is_over = |line: &str| line.contains("webhook:c") && line.contains("ended");
    let seen: Vec<Value> =
        watcher.until(is_over).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut told: Vec<(String, String)> = Vec::new();
    for event in &seen {
        assert_eq!((&event["agent"], &event["conversation"]), (&json!("main"), &json!("webhook:c")));
        assert_eq!(event["process"], "channel");
        let what = event["what"].as_str().unwrap().to_owned();
        let text =
            event["text"].as_str().or(event["tool"].as_str()).or(event["how"].as_str()).unwrap_or_default();
        match told.last_mut() {
            Some((last, whole)) if *last == what => whole.push_str(text),
            _ => told.push((what, text.to_owned())),
        }
    }
    let told: Vec<_> = told.iter().map(|(what, text)| (what.as_str(), text.as_str())).collect();
    assert_eq!(
        told,
        [
            ("started", ""),
            ("answering", ""),
            ("reasoning", "They want a story. The key is [hidden], I keep it."),
            ("text", "Let me write."),
            ("call", "reply"),
            ("arguments", "{\"content\": \"Once upon a time\"}"),
            ("tool_started", "reply"),
            ("tool_finished", "reply"),
            ("ended", "done"),
        ]
    );
    let pieces = seen.iter().filter(|event| event["what"] == "reasoning").count();
    assert!(pieces >= 3, "it came in {pieces} pieces");
    let lines = words.until(is_over).join("\n");
    let expected = "webhook:c  thinks: They want a story. The key is [hidden], I keep it.\n";
    assert!(lines.contains(expected) && lines.contains("webhook:other  says: Let me write."), "{lines}");
    assert!(!lines.contains(KEY));
    let (status, _) = daemon.stop();
    assert!(status.success());
    assert!(watcher.lines.next().is_none(), "the end of the daemon is the end of the stream");
    assert!(watcher.child.wait().unwrap().success());
}

#[test]
fn who_does_not_read_loses_events_and_holds_nobody_up() {
    const THOUGHT: usize = 256 << 10;
    let thought = "hm ".repeat(THOUGHT / 3);
    let double =
        Double::answering(move |_| streamed(&[&thought], &[], &[("reply", &["{\"content\": \"done\"}"])]));
    let home = Home::new(&anthropic(&double));
    let daemon = home.start();
    let mut slow = TcpStream::connect(("127.0.0.1", home.api)).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    await_onlookers(&daemon, 1);
    let mut client = daemon.client("c");
    for id in 0..24 {
        assert_eq!(client.ask(&id.to_string(), "think hard"), "done");
    }
    // It reads now, up to the news of what it has lost, and gets what happens next.
    let mut lines = BufReader::new(slow).lines().map(Result::unwrap);
    let lost = lines.find(|line| line.contains("\"lost\"")).unwrap();
    let lost: Value = serde_json::from_str(lost.strip_prefix("data: ").unwrap()).unwrap();
    assert!(lost["count"].as_u64().unwrap() > 0, "{lost}");
    daemon.client("d").ask("1", "and again");
    assert!(lines.any(|line| line.contains("webhook:d") && line.contains("\"started\"")));
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn only_the_operator_looks_on_and_only_a_few_at_once() {
    let home = Home::new("");
    std::fs::write(home.config(), home.text("") + "auth_token = \"the-token-of-the-operator\"\n").unwrap();
    let daemon = home.start();
    let events = |port: u16, more: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let path = if port == home.api { "/api/events" } else { "/events" };
        write!(stream, "GET {path}{more} HTTP/1.1\r\nHost: 127.0.0.1\r\n").unwrap();
        stream
    };
    let status = |mut stream: TcpStream, token: &str| {
        write!(stream, "Connection: close\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8_lossy(&head[9..]).into_owned(), stream)
    };
    let token = "the-token-of-the-operator";
    assert_eq!(status(events(home.api, ""), "a-guess").0, "401");
    assert_eq!(status(events(home.webhook, ""), token).0, "404");
    assert_eq!(status(events(home.api, "?agent=nobody"), token).0, "404");
    assert_eq!(status(events(home.api, "?who=me"), token).0, "400");
    let looking: Vec<_> = (0..4).map(|_| status(events(home.api, "?agent=main"), token)).collect();
    assert!(looking.iter().all(|(status, _)| status == "200"), "{looking:?}");
    assert_eq!(status(events(home.api, ""), token).0, "503");
    drop(looking);
    daemon::eventually("a place", PATIENCE, || status(events(home.api, ""), token).0 == "200");
    let (status, _) = daemon.stop();
    assert!(status.success());
}
