//! Kinds and their words, what is stored of a text, retention, and that reading stays in the index.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::clock::Zone;
use crate::id::{ProcessId, ProcessKind};

fn store() -> (tempfile::TempDir, WorkingMemory) {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    (folder, WorkingMemory::new(db))
}

fn write(memory: &WorkingMemory, event: NewEvent, at: i64) {
    memory.db.write(move |connection| event.insert(connection, Timestamp(at))).expect("write");
}

#[test]
fn every_kind_has_a_word_of_its_own_and_an_importance() {
    let words: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!((EventKind::ALL.len(), words.len()), (18, 18));
    for kind in EventKind::ALL {
        assert_eq!(kind.as_str().parse::<EventKind>().as_ref(), Ok(kind));
        assert!((0.0..=1.0).contains(&kind.importance()), "{kind}");
    }
    assert!("branch".parse::<EventKind>().is_err());
}

#[test]
fn an_event_comes_back_as_it_was_bounded_and_on_one_line() {
    let (_folder, memory) = store();
    let text = format!("a\u{1b}[2Jb\r\nc {}", "ü".repeat(2_000));
    let new = NewEvent {
        conversation: Some(ConversationId::new("irc:libera:#pi")),
        direct: true,
        importance: Some(7.0),
        run: Some(ProcessId::new(ProcessKind::Worker, 7)),
        message: Some("m1".to_owned()),
        ..NewEvent::new(EventKind::WorkerCompleted, text)
    };
    write(&memory, new, 1000);
    write(&memory, NewEvent::new(EventKind::System, "up"), 2000);
    let found = memory.newest(10).expect("read");
    assert_eq!(
        (found[0].text.as_str(), found[0].conversation.as_ref(), found[0].direct),
        ("up", None, false)
    );
    assert!((found[0].importance - EventKind::System.importance()).abs() < f64::EPSILON);
    let event = &found[1];
    assert!(event.text.starts_with("a [2Jb c ü") && event.text.len() <= TEXT_BYTES_MAX, "{}", event.text);
    assert_eq!((event.run.as_deref(), event.message.as_deref()), (Some("worker:7"), Some("m1")));
    assert!(event.direct && (event.importance - 1.0).abs() < f64::EPSILON);
    assert_eq!(memory.newest(1).expect("read").len(), 1);
}

#[test]
fn a_task_with_its_end_is_one_text() {
    let event = NewEvent::of_task(EventKind::Error, &"count the eggs ".repeat(20), "no eggs");
    assert!(event.text.starts_with("count the eggs") && event.text.ends_with("…: no eggs"), "{}", event.text);
}

#[test]
fn old_events_are_deleted_some_at_a_time_and_ids_count_on() {
    let (_folder, memory) = store();
    let day = 86_400_000;
    for at in 0..10 {
        write(&memory, NewEvent::new(EventKind::System, at.to_string()), at * day);
    }
    let texts = || memory.newest(100).expect("read").into_iter().map(|event| event.text).collect::<Vec<_>>();
    memory.forget_old(Timestamp(0)).expect("nothing is old enough");
    assert_eq!(texts().len(), 10);
    memory.forget_old(Timestamp(7 * day)).expect("forget");
    assert_eq!(texts(), ["9", "8", "7"]);
    memory.forget_old(Timestamp(100 * day)).expect("forget");
    assert_eq!(texts(), ["9"], "the newest stays");
    write(&memory, NewEvent::new(EventKind::System, "next"), 100 * day);
    assert_eq!(memory.newest(1).expect("read")[0].id, 11);
}

#[test]
fn looking_for_old_events_that_are_not_there_writes_nothing() {
    let (folder, memory) = store();
    write(&memory, NewEvent::new(EventKind::System, "up"), 1000);
    let log = || std::fs::metadata(folder.path().join("t.db-wal")).map_or(0, |file| file.len());
    let before = log();
    memory.forget_old(Timestamp(999)).expect("forget");
    assert_eq!(log(), before);
}

#[test]
fn events_are_chosen_in_the_index_alone() {
    let (_folder, memory) = store();
    let plan = memory.db.read(|connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", store::RECENT))?;
        // Without values: the plan does not depend on them.
        let (mut rows, mut steps) = (statement.raw_query(), Vec::new());
        while let Some(row) = rows.next()? {
            steps.push(row.get::<_, String>(3)?);
        }
        Ok(steps)
    });
    let plan = plan.expect("read");
    let events: Vec<_> = plan.iter().filter(|step| step.contains("working_memory_events")).collect();
    assert_eq!(events.len(), 4, "{plan:#?}");
    assert!(
        events.iter().all(|step| step.contains("COVERING INDEX working_memory_events_recent (created_at>")),
        "{plan:#?}"
    );
    let rows: Vec<_> = plan.iter().filter(|step| step.starts_with("SEARCH e ")).collect();
    assert_eq!(rows, ["SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"], "{plan:#?}");
}

#[test]
fn a_week_is_seven_days_with_today() {
    let now = Timestamp::parse_rfc3339("2026-11-21T10:00:00Z").expect("time");
    let days = Days::of(now, &Zone::utc());
    assert_eq!(Timestamp(days.tomorrow.0).since(days.earlier), Duration::from_secs(7 * 86_400));
    assert_eq!(days.yesterday.to_rfc3339(), "2026-11-20T00:00:00Z");
}
