//! The turn commit is all or nothing, inbound is taken once, results are relayed once.

mod attachments;
mod delegations;
mod earlier;

use std::time::Duration;

use super::*;
use crate::clock::SimulatedClock;
use crate::id::ProcessKind;

fn conversations() -> (tempfile::TempDir, Conversations) {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    (folder, Conversations::new(db, SimulatedClock::starting_at(Timestamp(1000))))
}

fn inbound(platform_id: &str, content: &str) -> Inbound {
    Inbound {
        instance: InstanceId::new("webhook"),
        platform_id: platform_id.to_owned(),
        conversation: ConversationId::new("webhook:c"),
        agent: None,
        sender_id: "u".to_owned(),
        sender_name: "Una".to_owned(),
        content: content.to_owned(),
        sent_at: Timestamp(900),
        direct: true,
        addressed: true,
        place: "webhook".to_owned(),
    }
}

fn place() -> Place {
    Place {
        conversation: ConversationId::new("webhook:c"),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: "webhook".to_owned(),
    }
}

fn say(text: &str) -> Content {
    Content::Text { text: text.to_owned() }
}

fn new_line(role: Role, content: &str) -> NewLine {
    NewLine { role, sender_id: None, sender_name: None, content: content.to_owned(), at: Timestamp(1) }
}

#[test]
fn the_same_message_is_taken_once() {
    let (_folder, c) = conversations();
    assert!(c.receive(inbound("1", "hello")).expect("write").is_some());
    assert_eq!(c.receive(inbound("1", "hello")).expect("write"), None);
    assert_eq!(c.unanswered(&place().conversation, 10).expect("read").len(), 1);
}

#[test]
fn a_message_cannot_be_answered_twice() {
    let (_folder, c) = conversations();
    let id = c.receive(inbound("1", "hello")).expect("write").expect("new");
    let commit = || TurnCommit {
        answered: vec![id],
        say: vec![say("hi")],
        answers: vec!["1".to_owned()],
        ..TurnCommit::default()
    };
    c.commit_turn(&place(), commit()).expect("first");
    assert!(matches!(c.commit_turn(&place(), commit()), Err(DbError::Refused(_))));
    let pending = c.pending(&InstanceId::new("webhook"), None, OutboxId(0), 10).expect("read");
    assert_eq!(pending.len(), 1, "the second answer was not stored");
    assert_eq!(pending[0].answers, ["1"]);
    assert!(c.unanswered(&place().conversation, 10).expect("read").is_empty());
}

#[test]
fn sending_is_begun_once_and_a_crash_leaves_unknown() {
    let (_folder, c) = conversations();
    c.commit_turn(&place(), TurnCommit { say: vec![say("a"), say("b")], ..TurnCommit::default() })
        .expect("commit");
    let irc = InstanceId::new("webhook");
    let ids: Vec<_> =
        c.pending(&irc, None, OutboxId(0), 10).expect("read").iter().map(|outbound| outbound.id).collect();
    let conversation = place().conversation;
    c.record(&ids[..1], &conversation, Delivery::Sending).expect("sending");
    assert!(c.record(&ids[..1], &conversation, Delivery::Sending).is_err());
    let unknown = c.recover("cut off").expect("recover").unknown_sends;
    assert_eq!(unknown, 1);
    assert_eq!(c.pending(&irc, None, OutboxId(0), 10).expect("read").len(), 1, "only the one never begun");
    c.record(&ids[..1], &conversation, Delivery::Sent { platform_id: None }).expect("no error, no change");
}

#[test]
fn a_branch_cut_off_by_a_crash_is_reported_once() {
    let (_folder, c) = conversations();
    c.receive(inbound("1", "think")).expect("write");
    c.begin_branch(1, &place().conversation, "think", &["1".to_owned()]).expect("begin");
    c.commit_turn(&place(), TurnCommit::default()).expect("the channel exists");
    let unfinished = c.recover("cut off").expect("recover").unfinished;
    assert_eq!(unfinished.len(), 2, "a message and a result: {unfinished:?}");
    let waiting = c.waiting_results(&place().conversation, 10).expect("read");
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].text.as_str(), waiting[0].answers.as_slice()),
        ("cut off", ["1".to_owned()].as_slice())
    );
    let branch = ProcessId::new(ProcessKind::Branch, 1);
    let relay = || TurnCommit { relayed: vec![branch], ..TurnCommit::default() };
    c.commit_turn(&place(), relay()).expect("relay");
    assert!(c.commit_turn(&place(), relay()).is_err());
    assert!(c.waiting_results(&place().conversation, 10).expect("read").is_empty());
    assert!(
        c.end_branch(
            1,
            BranchEnd { status: "done", conclusion: String::new(), tool_calls: 0 },
            vec![],
            nothing_else
        )
        .is_err()
    );
    assert_eq!(c.next_process_number().expect("read"), 2);
}

#[test]
fn records_come_back_in_order() {
    let (_folder, c) = conversations();
    let record = |number, step| Record { run: 4, number, step, payload: serde_json::json!({ "n": number }) };
    c.journal(vec![record(0, Step::Start), record(1, Step::Model)]).expect("submit");
    c.journal_durably(vec![record(2, Step::End)]).expect("write");
    let back = c.records(4).expect("read");
    assert_eq!(back.iter().map(|record| record.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(back[2].step, Step::End);
    assert_eq!(c.next_process_number().expect("read"), 5);
    assert_eq!(Timestamp(0).plus(Duration::from_secs(1)), Timestamp(1000));
}

#[test]
fn what_is_over_goes_after_its_time_and_ids_count_on() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let c = Conversations::new(db, clock.clone());
    let day = Duration::from_secs(86_400);
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        c.db.read(|connection| Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?))
            .expect("count")
    };
    let turn = |run: u64, answered: bool| {
        let id = c.receive(inbound(&run.to_string(), "hello")).expect("write").expect("new");
        let record = Record { run, number: 0, step: Step::Start, payload: serde_json::json!({}) };
        let commit = TurnCommit {
            answered: answered.then_some(id).into_iter().collect(),
            lines: vec![new_line(Role::User, "hello")],
            say: vec![say("hi")],
            journal: vec![record],
            ..TurnCommit::default()
        };
        c.commit_turn(&place(), commit).expect("commit");
    };
    (1..=3).for_each(|run| turn(run, run != 2));
    clock.advance(40 * day);
    turn(4, true);
    c.forget_old(60 * day).expect("nothing is old enough");
    assert_eq!((count("inbox"), count("outbox"), count("run_journal")), (4, 4, 4));
    c.forget_old(30 * day).expect("forget");
    assert_eq!((count("inbox"), count("outbox"), count("run_journal")), (2, 1, 1), "2 waits, 4 is new");
    assert_eq!(count("conversation_messages"), 4, "the history stays");
    clock.advance(40 * day);
    c.forget_old(30 * day).expect("forget");
    assert_eq!((count("outbox"), count("run_journal")), (1, 1), "the newest stays");
    turn(5, true);
    let last = c.db.read(|connection| {
        Ok(connection.query_row("SELECT max(id) FROM outbox", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(last.expect("read"), 5, "a client's cursor stays right");
    assert_eq!(c.next_process_number().expect("read"), 6);
}

#[test]
fn tasks_that_are_over_go_after_their_time_and_their_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let c = Conversations::new(db, clock.clone());
    let day = Duration::from_secs(86_400);
    let add = |status: &'static str, updated_at: Timestamp| {
        let created_at = c.now();
        c.db.write(move |connection| {
            let sql = "INSERT INTO tasks (title, status, priority, created_by, created_at, updated_at)
                           VALUES ('t', ?1, 'low', 'operator', ?2, ?3) RETURNING number";
            let number: i64 = connection
                .query_row(sql, (status, created_at.0, updated_at.0), |row| row.get(0))?;
            let sql = "INSERT INTO task_attempts (worker, task, attempt, started_at, ended_at) VALUES (?1, ?1, 1, ?2, ?2)";
            connection.execute(sql, [number, created_at.0])?;
            Ok(number)
        })
        .expect("add")
    };
    let old = c.now();
    let lately = old.plus(35 * day);
    for (status, updated_at) in
        [("done", old), ("ready", old), ("failed", old), ("backlog", old), ("done", lately), ("done", old)]
    {
        add(status, updated_at);
    }
    clock.advance(40 * day);
    c.forget_old(30 * day).expect("forget");
    let left = c.db.read(|connection| {
        let mut statement = connection.prepare(
            "SELECT t.number FROM tasks t JOIN task_attempts a ON a.task = t.number ORDER BY t.number",
        )?;
        let numbers = statement.query_map([], |row| row.get::<_, i64>(0))?;
        Ok(numbers.collect::<Result<Vec<_>, _>>()?)
    });
    assert_eq!(left.expect("read"), [2, 4, 5, 6], "what is open, was touched lately, or is the newest stays");
    let attempts = c.db.read(|connection| {
        Ok(connection.query_row("SELECT count(*) FROM task_attempts", [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(attempts.expect("read"), 4, "attempts go with their task");
    assert_eq!(add("ready", c.now()), 7);
}

#[test]
fn what_nobody_has_read_is_told_also_of_a_worker_whose_end_is_no_news() {
    let (_folder, c) = conversations();
    let here = place().conversation;
    for worker in [7, 8] {
        c.begin_worker(worker, &here, "count the eggs", false, &[], |_, _| Ok(())).expect("begin");
    }
    let routed = routed::Routed { worker: 7, message: "only the brown ones".to_owned() };
    c.db.write(move |connection| routed::insert(connection, &routed, Timestamp(2))).expect("route");
    let judge = |_: &_, _: &_, _| Ok(Verdict { quiet: vec![7, 8], ..Verdict::default() });
    c.recover_and("cut off", judge).expect("recover");
    let told = c.waiting_results(&here, 10).expect("read");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].process, ProcessId::new(ProcessKind::Worker, 7));
    assert!(told[0].text.contains("- only the brown ones"), "{told:?}");
}

#[test]
fn the_runs_of_jobs_are_not_told_as_conversations_with_people() {
    let (_folder, conversations) = conversations();
    let people = place();
    let job = Place {
        conversation: ConversationId::new("cron:tea"),
        instance: InstanceId::new(SCHEDULED),
        ..people.clone()
    };
    for place in [&people, &job] {
        let turn = TurnCommit { lines: vec![new_line(Role::User, "hello")], ..TurnCommit::default() };
        conversations.commit_turn(place, turn).expect("commit");
    }
    let active = conversations.active(&ConversationId::new("elsewhere"), Timestamp(0), 10).expect("read");
    let ids: Vec<_> = active.into_iter().map(|active| active.conversation).collect();
    assert_eq!(ids, [people.conversation]);
}
