//! Rebuilt from its records, a run is what the driver had: after each record of many random runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::json;

use super::*;

fn record(number: u32, step: Step, payload: Value) -> Record {
    Record { run: 1, number, step, payload }
}

#[test]
fn what_is_no_run_is_refused() {
    let prompt = || Message::user("p");
    let tool = record(0, Step::Tool, json!({ "tool": "x", "result": "y" }));
    assert!(matches!(rebuild(Vec::new(), prompt(), &[tool]), Err(RebuildError::Misplaced(0))));
    let long = record(1, Step::Model, json!({ "too_long": 2_000_000 }));
    assert!(matches!(rebuild(Vec::new(), prompt(), &[long]), Err(RebuildError::TooLong(1))));
    let broken = record(2, Step::Model, json!({ "response": { "choice": 7 } }));
    assert!(matches!(rebuild(Vec::new(), prompt(), &[broken]), Err(RebuildError::Unreadable(2, _))));
}

#[test]
fn words_and_trims_stand_where_the_run_had_them() {
    let records = [
        record(0, Step::Start, json!({ "kind": "worker" })),
        record(1, Step::Nudge, json!({ "text": "a" })),
        record(2, Step::Route, json!({ "text": "b" })),
        record(3, Step::Trim, json!({ "task": 1, "drop": 2, "recap": "r" })),
        record(4, Step::Wait, json!({})),
        record(5, Step::Resume, json!({})),
    ];
    let before = vec![Message::user("old")];
    let run = rebuild(before, Message::user("p"), &records).unwrap();
    assert_eq!(run.history, ["p", "r", "b"].map(Message::user));
    assert_eq!((run.task, run.waits, run.ended, run.next), (0, true, false, 6));
    let mut records = records.to_vec();
    records.push(record(6, Step::Route, json!({ "text": "c" })));
    let run = rebuild(vec![Message::user("old")], Message::user("p"), &records).unwrap();
    assert!(!run.waits && run.history.last() == Some(&Message::user("c")));
}
