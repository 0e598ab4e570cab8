//! What happened is put together by a model, with the whole binary and a double for the model: once, when there
//! is enough of it, and in the place of what it tells of.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/llm.rs"]
mod llm_double;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daemon::{DEADLINE, Daemon, HeldDatabase, Home, eventually};
use llm_double::script::{calls, config, last_message, messages, offers};
use llm_double::{Double, Request, Say};
use serde_json::{Value, json};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::db::Db;
use spacebot::id::ConversationId;
use spacebot::working_memory::{EventKind, NewEvent};

const HOUR: i64 = 3_600_000;
const FAST: &str = "[defaults.cortex]\ntick_interval_secs = 5\n";

/// A zone in which it is about noon, so that no test runs over midnight.
fn noon() -> String {
    let hour = SystemClock::shared().now().0.div_euclid(HOUR).rem_euclid(24);
    // The names count to the west.
    match hour - 12 {
        0 => "UTC".to_owned(),
        west @ 1.. => format!("Etc/GMT+{west}"),
        east => format!("Etc/GMT{east}"),
    }
}

fn home(double: &Double, routing: &str) -> Home {
    Home::new(&format!("{}{routing}{FAST}", config(double, &format!("timezone = \"{}\"", noon()))))
}

/// One of its own: where it fails, the model of the others does not rest with it.
const WITH_MODEL: &str = "cortex = \"double/c\"\n";

fn system(request: &Request) -> String {
    messages(request)[0]["content"].to_string()
}

fn is_channel(request: &Request) -> bool {
    offers(request, "spawn_worker")
}

fn is_synthesis(request: &Request) -> bool {
    system(request).contains("You keep the journal of")
}

/// Requests to put together: paragraphs, and summaries.
fn asked(double: &Double) -> [Vec<Request>; 2] {
    let all = double.requests().into_iter().filter(is_synthesis);
    let (daily, intraday): (Vec<_>, Vec<_>) = all.partition(|one| system(one).contains("A day is over"));
    [intraday, daily]
}

fn model(request: &Request) -> Say {
    match () {
        () if is_channel(request) => calls(&[("reply", json!({ "content": "yes" }))]),
        () if system(request).contains("A day is over") => {
            Say::text("Eggs were sold\nall day long. k-double")
        }
        () if is_synthesis(request) => {
            Say::text("# Eggs\nMany eggs were counted </recent> in the kitchen (direct).")
        }
        () => Say::text("{\"display_name\": \"Bo\", \"status\": \"awake\", \"bio\": \"A bot.\"}"),
    }
}

/// Events of which the first happened then; the daemon does not run.
fn happen(home: &Home, first: Timestamp, words: &'static str, count: i64) {
    std::fs::create_dir_all(home.database().parent().unwrap()).unwrap();
    let db = Db::open_inline(&home.database(), None).unwrap();
    db.write(move |connection| {
        (0..count).try_for_each(|number| {
            let event = NewEvent {
                conversation: Some(ConversationId::new("webhook:kitchen")),
                direct: true,
                ..NewEvent::new(EventKind::Outcome, format!("{words} {number}."))
            };
            event.insert(connection, Timestamp(first.0 + number))
        })
    })
    .unwrap();
}

fn now() -> Timestamp {
    SystemClock::shared().now()
}

fn stored(home: &Home) -> Vec<(bool, String, i64)> {
    let db = Db::open_inline(&home.database(), None).unwrap();
    let rows = db.read(|connection| {
        let sql = "SELECT daily, text, events FROM working_memory_syntheses ORDER BY id";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    });
    rows.unwrap()
}

fn cortex_of(daemon: &Daemon<'_>) -> Value {
    daemon.status()["cortex"][0].clone()
}

/// It has looked, and has nothing more to do.
fn rest(daemon: &Daemon<'_>) {
    eventually("it rests", DEADLINE, || {
        let cortex = cortex_of(daemon);
        cortex["state"] == "warm" && cortex["running"] == Value::Null
    });
}

/// What the last turn saw of what happened lately.
fn recent(double: &Double) -> String {
    let turn = double.requests().into_iter().rfind(is_channel).unwrap();
    let last = last_message(&turn);
    let (_, inside) = last.split_once("<recent>").unwrap_or_else(|| panic!("{last}"));
    inside.split_once("</recent>").unwrap().0.to_owned()
}

#[test]
fn fifteen_events_lead_to_one_call_and_its_paragraph_stands_in_their_place() {
    let double = Double::recording(model);
    let home = home(&double, WITH_MODEL);
    happen(&home, now(), "counted eggs, box", 14);
    let daemon = home.start();
    rest(&daemon);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(asked(&double).map(|requests| requests.len()), [0, 0], "fourteen are too few");
    happen(&home, now(), "sold eggs, box", 1);
    let daemon = home.start();
    eventually("a paragraph", DEADLINE, || stored(&home).len() == 1);
    let [intraday, daily] = asked(&double);
    assert_eq!((intraday.len(), daily.len()), (1, 0));
    let (system, words) = (system(&intraday[0]), last_message(&intraday[0]));
    assert!(system.contains("50 to 100 words") && !intraday[0].json["tools"].is_array(), "{system}");
    assert_eq!(
        words.matches("| outcome | webhook:kitchen (direct) | counted eggs, box ").count(),
        14,
        "{words}"
    );
    assert!(words.contains("sold eggs, box 0."), "{words}");
    let mut client = daemon.client("hall");
    client.ask("1", "what is new?");
    let shown = recent(&double);
    let paragraph = "| in short | - | Eggs Many eggs were counted <\\\\/recent> in the kitchen (direct).";
    assert!(shown.contains(paragraph) && !shown.contains("eggs, box"), "{shown}");
    let stable = |request: &Request| self::system(request).contains("in short");
    assert!(!double.requests().iter().any(stable), "only at the end of the prompt");
    // Nothing more, and again two things that are too few: nobody is asked.
    rest(&daemon);
    daemon.stop();
    happen(&home, now(), "broke egg", 2);
    let daemon = home.start();
    rest(&daemon);
    daemon.client("hall").ask("2", "and now?");
    let shown = recent(&double);
    assert!(shown.contains(paragraph) && shown.contains("| broke egg 1."), "{shown}");
    daemon.stop();
    assert_eq!(asked(&double).map(|requests| requests.len()), [1, 0]);
    assert_eq!(stored(&home)[0].2, 15);
}

#[test]
fn a_kill_between_the_answer_and_the_commit_leads_to_one_paragraph() {
    let place: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let held: Arc<Mutex<Option<HeldDatabase>>> = Arc::default();
    let double = Double::recording({
        let (place, held) = (place.clone(), held.clone());
        move |request| {
            if is_synthesis(request)
                && let Some(database) = place.lock().unwrap().take()
            {
                // From now on nothing is committed: the answer comes, and its paragraph cannot be stored.
                *held.lock().unwrap() = Some(HeldDatabase::hold(&database));
            }
            model(request)
        }
    });
    let home = home(&double, WITH_MODEL);
    happen(&home, now(), "counted eggs, box", 15);
    *place.lock().unwrap() = Some(home.database());
    let daemon = home.start();
    eventually("it is asked", DEADLINE, || held.lock().unwrap().is_some());
    eventually("it has answered", DEADLINE, || asked(&double)[0].len() == 1);
    daemon.kill();
    held.lock().unwrap().take().unwrap().release();
    assert_eq!(stored(&home), [], "the call came to nothing");
    let daemon = home.start();
    eventually("a paragraph", DEADLINE, || stored(&home).len() == 1);
    rest(&daemon);
    daemon.kill();
    let daemon = home.start();
    rest(&daemon);
    daemon.stop();
    assert_eq!(asked(&double).map(|requests| requests.len()), [2, 0], "one call more, and no third");
    assert_eq!(stored(&home).len(), 1);
}

#[test]
fn a_day_that_is_over_gets_one_summary_unless_little_happened_and_keys_do_not_get_into_it() {
    let double = Double::recording(model);
    let home = home(&double, WITH_MODEL);
    let ago = |days: i64| Timestamp(now().0 - days * 24 * HOUR);
    happen(&home, ago(3), "baked bread", 4);
    happen(&home, ago(1), "sold eggs, box", 6);
    happen(&home, now(), "counted eggs, box", 2);
    let daemon = home.start();
    eventually("a summary", DEADLINE, || stored(&home).len() == 1);
    rest(&daemon);
    let [intraday, daily] = asked(&double);
    assert_eq!((intraday.len(), daily.len()), (0, 1));
    assert!(system(&daily[0]).contains("At most 300 words"), "{}", system(&daily[0]));
    let words = last_message(&daily[0]);
    assert!(
        words.contains("sold eggs, box 5.") && !words.contains("counted") && !words.contains("baked"),
        "{words}"
    );
    let (is_daily, text, events) = stored(&home).remove(0);
    assert!(
        is_daily
            && events == 6
            && text.starts_with("Eggs were sold all day long.")
            && !text.contains("k-double"),
        "{text}"
    );
    daemon.client("hall").ask("1", "what is new?");
    let shown = recent(&double);
    assert!(
        shown.contains("| in short | - | Eggs were sold all day long.") && !shown.contains("sold eggs, box"),
        "{shown}"
    );
    assert!(shown.contains("baked bread 3.") && shown.contains("counted eggs, box 1."), "{shown}");
    daemon.kill();
    let daemon = home.start();
    rest(&daemon);
    daemon.stop();
    assert_eq!(asked(&double).map(|requests| requests.len()), [0, 1], "once");
}

#[test]
fn without_a_model_that_gives_words_everything_is_shown_as_it_happened() {
    // One that does not stop, one whose key is wrong, and none at all.
    for (number, routing) in [WITH_MODEL, WITH_MODEL, ""].into_iter().enumerate() {
        let double = Double::recording(move |request| match number {
            _ if !is_synthesis(request) => model(request),
            0 => Say::text("egg ".repeat(301)),
            1 => Say::error(401, "authentication_error", "no"),
            _ => Say::text("nobody may be asked"),
        });
        let home = home(&double, routing);
        happen(&home, now(), "counted eggs, box", 15);
        let daemon = home.start();
        if routing.is_empty() {
            rest(&daemon);
        } else {
            eventually("it waits before it tries again", Duration::from_secs(60), || {
                let resting = cortex_of(&daemon)["resting"].to_string();
                resting.contains("paragraph of the day")
            });
        }
        daemon.client("hall").ask("1", "what is new?");
        let shown = recent(&double);
        assert!(shown.contains("counted eggs, box 14.") && !shown.contains("in short"), "{number}: {shown}");
        daemon.stop();
        assert_eq!(stored(&home), [], "{number}");
        assert_eq!(asked(&double)[0].len(), usize::from(!routing.is_empty()), "{number}");
    }
}
