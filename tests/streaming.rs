//! Answers that are seen while they are being written, in the whole binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daemon::{Daemon, Home};
use llm_double::script::{calls, config};
use llm_double::{At, Double, Say};
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
    assert_eq!(look(&daemon, i64::MAX, &broken)["draft"], Value::Null);
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
