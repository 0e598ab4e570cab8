//! Messages that wait until a model is back, in the whole binary.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::{Home, eventually, free_port};
use llm_double::script::{calls, config, last_message};
use llm_double::{Double, Say};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const DEFER: &str = "[defaults.offline]\ndefer = true\nmax_age_hours = 1\n";
const KEPT: &str = "Your message is kept";

/// A model that is limited until somebody says that it is well; then it repeats what it hears.
fn double() -> (Double, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = is_well.clone();
    let double = Double::recording(move |request| {
        if !well.load(Ordering::SeqCst) {
            return Say::error(429, "rate_limit_error", "slow down").header("retry-after", "1");
        }
        let heard = last_message(request);
        let words = ["first", "second", "third"].into_iter().filter(|word| heard.contains(word));
        calls(&[("reply", json!({ "content": format!("re: {}", words.collect::<Vec<_>>().join(" ")) }))])
    });
    (double, is_well)
}

fn deferred(home: &Home) -> i64 {
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    let sql = "SELECT count(*) FROM inbox WHERE deferred_at IS NOT NULL AND answered_at IS NULL";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn messages_wait_for_the_model_across_a_kill_and_are_answered_in_their_order_with_their_age() {
    let (double, is_well) = double();
    let home = Home::new(&format!("{}{DEFER}", config(&double, "")));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "first");
    client.hear(KEPT);
    assert_eq!(client.unasked.len(), 1, "it is no answer: {:?}", client.said);
    assert_eq!(daemon.status()["lost_models"][0]["model"], "double/m");
    client.send("2", "second");
    eventually("both are kept", PATIENCE, || deferred(&home) == 2);
    daemon.kill();

    let daemon = home.start();
    let asked = double.requests().len();
    let mut client = daemon.client("c");
    eventually("the model is tried again", PATIENCE, || double.requests().len() > asked);
    is_well.store(true, Ordering::SeqCst);
    assert_eq!((client.answer("1"), client.answer("2")), ("re: first".to_owned(), "re: second".to_owned()));
    let answers: Vec<&String> = client.said.iter().filter(|said| said.starts_with("re:")).collect();
    assert_eq!(answers, ["re: first", "re: second"], "in their order");
    let kept = client.said.iter().filter(|said| said.contains(KEPT)).count();
    assert_eq!(kept, 1, "said again by the poll from the beginning, and not twice: {:?}", client.said);
    let heard: Vec<String> = double.requests().iter().map(last_message).collect();
    let last = heard.iter().rfind(|heard| heard.contains("second")).unwrap();
    assert!(last.contains("had to wait") && last.contains("at="), "{last}");
    client.send("3", "third");
    assert_eq!(client.answer("3"), "re: third");
    let heard = double.requests().iter().map(last_message).next_back().unwrap();
    assert!(!heard.contains("had to wait"), "{heard}");
    assert_eq!(deferred(&home), 0);
    assert_eq!(daemon.status()["lost_models"], json!([]));
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn what_has_waited_too_long_is_told_and_not_answered() {
    let (double, is_well) = double();
    let home = Home::new(&format!("{}{DEFER}", config(&double, "")));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "first");
    client.hear(KEPT);
    daemon.kill();
    let connection = rusqlite::Connection::open(home.database()).unwrap();
    connection.execute("UPDATE inbox SET deferred_at = deferred_at - 3601000", []).unwrap();
    drop(connection);

    let daemon = home.start();
    let mut client = daemon.client("c");
    assert!(client.answer("1").contains("no longer answer"), "{:?}", client.said);
    is_well.store(true, Ordering::SeqCst);
    client.send("2", "second");
    assert_eq!(client.answer("2"), "re: second");
    assert_eq!(deferred(&home), 0);
    let (status, _) = daemon.stop();
    assert!(status.success());
}

#[test]
fn another_model_in_the_config_answers_what_waits_at_once() {
    let (double, is_well) = double();
    is_well.store(true, Ordering::SeqCst);
    let good = format!("{}{DEFER}", config(&double, ""));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let home = Home::new(&good.replace(&double.origin(), &nobody));
    let daemon = home.start();
    let mut client = daemon.client("c");
    client.send("1", "first");
    client.hear(KEPT);
    let text = home.text(&good);
    std::fs::write(home.config(), text).unwrap();
    assert_eq!(client.answer("1"), "re: first");
    let (status, _) = daemon.stop();
    assert!(status.success());
}
