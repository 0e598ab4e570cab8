//! What is written is read back, and nothing grows without a bound.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::clock::SimulatedClock;

fn store() -> (CortexStore, std::sync::Arc<SimulatedClock>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = SimulatedClock::starting_at(Timestamp(1_000_000));
    let db = Db::open_inline(&folder.path().join("spacebot.db"), None).unwrap();
    (CortexStore::new(db, clock.clone()), clock, folder)
}

fn bulletin(rendered: &str, inputs: &str, changed_at: Timestamp) -> Bulletin {
    let (rendered, inputs) = (rendered.to_owned(), inputs.to_owned());
    Bulletin { inputs, memories: vec!["m1".to_owned()], rendered, smoothed: None, changed_at }
}

#[test]
fn a_bulletin_keeps_the_words_of_a_model_as_long_as_its_text_is_the_same() {
    let (store, clock, _folder) = store();
    assert_eq!(store.bulletin().unwrap(), None);
    let first = store.now();
    store.set_bulletin(bulletin("one", "a", first)).unwrap();
    assert!(store.smooth_bulletin("one".to_owned(), "smooth one".to_owned()).unwrap());
    clock.advance(Duration::from_secs(60));
    store.set_bulletin(bulletin("one", "b", store.now())).unwrap();
    let same = store.bulletin().unwrap().unwrap();
    assert_eq!((same.text(), same.inputs.as_str(), same.changed_at), ("smooth one", "b", first));
    store.set_bulletin(bulletin("two", "c", store.now())).unwrap();
    let other = store.bulletin().unwrap().unwrap();
    assert_eq!((other.text(), other.smoothed.clone(), other.changed_at), ("two", None, store.now()));
    assert!(!store.smooth_bulletin("one".to_owned(), "late".to_owned()).unwrap(), "made for another text");
    assert_eq!(store.bulletin().unwrap().unwrap().text(), "two");
}

#[test]
fn only_the_newest_events_are_kept() {
    let (store, _, _folder) = store();
    for round in 0..3 {
        let event =
            |number| NewCortexEvent::new("tool_failing", format!("{round} {number}"), json!({ "n": number }));
        store.note((0..500).map(event).collect()).unwrap();
    }
    let kept = store.events(5000).unwrap();
    assert_eq!(kept.len(), EVENTS_MAX);
    assert_eq!(kept[0].summary, "2 499");
    assert_eq!(kept.last().unwrap().summary, "1 0");
    assert_eq!(kept[0].details, Some(json!({ "n": 499 })));
}

#[test]
fn threads_are_apart() {
    let (store, _, _folder) = store();
    for number in 0..5 {
        store.say(ChatMessage::new("a", ChatRole::User, format!("a{number}")), |_, _| Ok(())).unwrap();
        store.say(ChatMessage::new("b", ChatRole::Assistant, format!("b{number}")), |_, _| Ok(())).unwrap();
    }
    let last: Vec<_> = store.chat("a", 2).unwrap().into_iter().map(|message| message.content).collect();
    assert_eq!(last, ["a3", "a4"]);
    assert_eq!(store.threads().unwrap(), [("b".to_owned(), 5), ("a".to_owned(), 5)]);
}
