//! Kinds and their words, what is stored of a text, retention, and that reading stays in the index.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::clock::Zone;
use crate::db::rusqlite;
use crate::id::{InstanceId, ProcessId, ProcessKind};

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

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect("time")
}

fn days(now: &str) -> Days {
    Days::of(at(now), &"Europe/Berlin".parse().expect("zone"))
}

/// `count` events, ten minutes apart.
fn happen(memory: &WorkingMemory, from: &str, count: i64) {
    for number in 0..count {
        write(
            memory,
            NewEvent::new(EventKind::Outcome, format!("{from} {number}")),
            at(from).0 + number * 600_000,
        );
    }
}

fn paragraph(memory: &WorkingMemory, now: &str, text: &str) -> bool {
    let batch = memory.unread(&days(now)).expect("read").expect("something to put together");
    memory.put_together(batch, text.to_owned(), at(now)).expect("write")
}

#[test]
fn a_paragraph_takes_what_is_in_none_and_its_events_are_not_shown_any_more() {
    let (_folder, memory) = store();
    happen(&memory, "2026-11-20T21:00:00+01:00", 2);
    happen(&memory, "2026-11-21T08:00:00+01:00", 4);
    let now = "2026-11-21T10:00:00+01:00";
    let pending = memory.pending(&days(now)).expect("read");
    assert_eq!((pending.today, pending.unread, pending.paragraphs), (4, 4, 0));
    assert_eq!(pending.oldest, Some(at("2026-11-21T08:00:00+01:00")));
    assert_eq!(pending.days, Vec::<usize>::new(), "two events are no day");
    let batch = memory.unread(&days(now)).expect("read").expect("four events");
    let read = words(&batch, &"Europe/Berlin".parse().expect("zone")).expect("words");
    assert!(
        read.starts_with("Saturday, 2026-11-21, what happened") && !read.contains("2026-11-20"),
        "{read}"
    );
    assert!(read.contains("\n08:30 | outcome | - | 2026-11-21T08:00:00+01:00 3"), "{read}");
    assert!(paragraph(&memory, now, "four\nthings"));
    let again = memory.put_together(batch, "four things again".to_owned(), at(now)).expect("write");
    assert!(!again, "it was done already");
    let pending = memory.pending(&days(now)).expect("read");
    assert_eq!((pending.today, pending.unread, pending.last_made), (4, 0, Some(at(now))));
    assert!(memory.unread(&days(now)).expect("read").is_none());
    let shown = || memory.recent(&days(now), None, &WorkingMemoryConfig::default()).expect("read");
    assert_eq!((shown().today.len(), shown().yesterday.len(), shown().of_today.len()), (0, 2, 1));
    let one = shown().of_today.remove(0);
    assert_eq!((one.text.as_str(), one.events, one.last_event), ("four things", 4, 6));
    // What happens now, by a clock that was set back, comes after it all the same.
    happen(&memory, "2026-11-21T07:00:00+01:00", 1);
    assert_eq!((memory.pending(&days(now)).expect("read").unread, shown().today.len()), (1, 1));
}

#[test]
fn a_day_that_is_over_is_put_together_once_from_its_paragraphs_and_the_rest() {
    let (_folder, memory) = store();
    happen(&memory, "2026-11-19T08:00:00+01:00", 3);
    happen(&memory, "2026-11-20T08:00:00+01:00", 4);
    assert!(paragraph(&memory, "2026-11-20T10:00:00+01:00", "the morning"));
    happen(&memory, "2026-11-20T23:20:00+01:00", 4);
    // The next day here; in Greenwich it still is the same.
    let now = "2026-11-21T00:10:00+01:00";
    let pending = memory.pending(&days(now)).expect("read");
    assert_eq!((pending.today, pending.unread, pending.days), (0, 0, vec![1]));
    let batch = memory.past(&days(now), 1).expect("read").expect("a day");
    let read = words(&batch, &"Europe/Berlin".parse().expect("zone")).expect("words");
    assert!(read.contains("08:00-08:30 | the morning\n") && read.contains("\n23:20 | outcome"), "{read}");
    assert_eq!(batch.events.len(), 4, "the others are in the paragraph");
    assert!(memory.put_together(batch.clone(), "a day".to_owned(), at(now)).expect("write"));
    assert!(!memory.put_together(batch, "a day again".to_owned(), at(now)).expect("write"));
    assert_eq!(memory.pending(&days(now)).expect("read").days, Vec::<usize>::new());
    assert!(
        memory.past(&days(now), 1).expect("read").is_none()
            && memory.past(&days(now), 0).expect("read").is_none()
    );
    let recent = memory.recent(&days(now), None, &WorkingMemoryConfig::default()).expect("read");
    assert_eq!((recent.yesterday.len(), recent.earlier.len(), recent.of_today.len()), (0, 3, 0));
    assert_eq!((recent.of_yesterday[0].text.as_str(), recent.of_yesterday[0].events), ("a day", 8));
    // A clock that goes back lets the paragraph be shown again, and takes nothing away.
    let back = "2026-11-20T23:59:00+01:00";
    let recent = memory.recent(&days(back), None, &WorkingMemoryConfig::default()).expect("read");
    assert_eq!((recent.today.len(), recent.of_today.len(), recent.yesterday.len()), (4, 1, 3));
    // In another zone some of it is of another day, and stands there once.
    let tokyo = Days::of(at(now), &"Asia/Tokyo".parse().expect("zone"));
    let recent = memory.recent(&tokyo, None, &WorkingMemoryConfig::default()).expect("read");
    assert_eq!((recent.today.len(), recent.of_today.len(), recent.of_yesterday.len()), (4, 0, 0));
    assert_eq!(memory.pending(&tokyo).expect("read").days, Vec::<usize>::new());
}

#[test]
fn more_than_one_call_can_read_is_left_to_the_next_and_is_read_in_its_order() {
    let (_folder, memory) = store();
    for number in 0..130 {
        write(
            &memory,
            NewEvent::new(EventKind::Outcome, format!("n{number}")),
            at("2026-11-21T08:00:00Z").0 + number,
        );
    }
    let now = "2026-11-21T10:00:00Z";
    let first = memory.unread(&days(now)).expect("read").expect("events");
    assert_eq!((first.events.len(), first.events[99].text.as_str()), (BATCH_EVENTS_MAX, "n99"));
    assert!(paragraph(&memory, now, "one"));
    assert_eq!(memory.pending(&days(now)).expect("read").unread, 30);
    assert!(paragraph(&memory, now, "two"));
    assert_eq!(memory.pending(&days(now)).expect("read").unread, 0);
}

#[test]
fn what_was_put_together_goes_with_its_events() {
    let (folder, memory) = store();
    happen(&memory, "2026-11-20T08:00:00Z", 5);
    assert!(paragraph(&memory, "2026-11-20T10:00:00Z", "long ago"));
    let count = || {
        let rows = |connection: &rusqlite::Connection| {
            Ok(connection
                .query_row("SELECT count(*) FROM working_memory_syntheses", [], |row| row.get::<_, i64>(0))?)
        };
        memory.db.read(rows).expect("read")
    };
    memory.forget_old(at("2026-11-20T08:00:00Z")).expect("forget");
    assert_eq!(count(), 1);
    memory.forget_old(at("2026-11-21T08:00:00Z")).expect("forget");
    assert_eq!(count(), 0);
    drop(folder);
}

/// A store that has taken these messages: instance, platform id, conversation, sender.
fn with_messages(messages: &[[&'static str; 4]]) -> (tempfile::TempDir, WorkingMemory) {
    let (folder, memory) = store();
    let messages = messages.to_vec();
    let stored = memory.db.write(move |connection| {
        for message in messages {
            connection.execute(
                "INSERT INTO inbox (instance, platform_id, conversation_id, sender_id, sender_name, content, place,
                                    direct, addressed, sent_at, received_at)
                 VALUES (?1, ?2, ?3, ?4, ?4, '', '', 0, 1, 0, 0)",
                message,
            )?;
        }
        Ok(())
    });
    stored.expect("stored");
    (folder, memory)
}

fn asked(conversation: &str, messages: &[&str], text: &str) -> NewEvent {
    NewEvent {
        conversation: Some(ConversationId::new(conversation)),
        asked: Asked {
            instance: Some(InstanceId::new("irc")),
            messages: messages.iter().map(|id| (*id).to_owned()).collect(),
        },
        ..NewEvent::new(EventKind::BranchCompleted, text)
    }
}

#[test]
fn an_event_is_about_the_person_who_alone_has_asked_for_it() {
    let (_folder, memory) = with_messages(&[
        ["irc", "m1", "irc:#a", "una"],
        ["irc", "m2", "irc:#a", "una"],
        ["irc", "m3", "irc:#a", "bob"],
        ["irc", "m4", "irc:una", "una"],
        ["webhook", "m5", "webhook:b", "una"],
    ]);
    let one = asked("irc:#a", &["m1"], "one");
    let spawned = NewEvent { kind: EventKind::WorkerSpawned, ..asked("irc:#a", &["m1"], "begun") };
    let elsewhere = Asked { instance: Some(InstanceId::new("webhook")), messages: vec!["m5".to_owned()] };
    for (at, event) in (0..).zip([
        one.clone(),
        asked("irc:#a", &["m1", "m2"], "both are hers"),
        asked("irc:#a", &["m1", "m3"], "of both"),
        asked("irc:#a", &["m1", "gone"], "of one who is not known any more"),
        asked("irc:#b", &["m1"], "of another conversation"),
        asked("irc:#a", &["m3"], "his"),
        spawned,
        asked("irc:#a", &[], "of nobody"),
        NewEvent { direct: true, ..asked("irc:una", &["m4"], "said to us alone") },
        NewEvent { asked: elsewhere, ..asked("webhook:b", &[], "elsewhere") },
    ]) {
        write(&memory, event, at);
    }
    let about = |people: &[&[&str]], limit| {
        let people: Vec<Vec<String>> =
            people.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect();
        let found = memory.of_people(&people, limit).expect("read");
        found
            .into_iter()
            .map(|events| events.into_iter().map(|event| event.text).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert_eq!(about(&[&["irc:una"], &["irc:bob"]], 3), [vec!["both are hers", "one"], vec!["his"]]);
    assert_eq!(
        about(&[&["irc:eve"], &["irc:una", "webhook:una"]], 2),
        [vec![], vec!["elsewhere", "both are hers"]]
    );
    assert!(about(&[], 3).is_empty());
}

#[test]
fn what_is_about_people_is_found_by_its_index_however_many_they_are() {
    let (_folder, memory) = store();
    let plan = memory.db.read(|connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", store::OF_PEOPLE))?;
        let rows = statement.query_map(rusqlite::params!["[]", 3, ""], |row| row.get::<_, String>(3))?;
        Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
    });
    let plan = plan.expect("plan");
    let rows: Vec<_> = plan.iter().filter(|step| step.starts_with("SEARCH")).collect();
    let expected = [
        "SEARCH e USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH working_memory_events USING INDEX working_memory_events_people (asked_by=?)",
    ];
    assert_eq!(rows, expected, "{plan:#?}");
}
