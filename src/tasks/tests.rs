//! The board keeps its table of transitions whatever is asked of it, by however many at once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::clock::SimulatedClock;
use crate::error::{Fault, Kind};
use crate::id::{ConversationId, InstanceId, ProcessKind};

const LIMIT: usize = 3;
const RETRIES: Retries = Retries { attempts: LIMIT, pause: Duration::ZERO };

fn board() -> (tempfile::TempDir, Tasks) {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open_inline(&folder.path().join("t.db"), None).unwrap();
    (folder, Tasks::new(db, SimulatedClock::starting_at(Timestamp(1000))))
}

fn una() -> Actor {
    Actor::Person("Una".to_owned())
}

fn branch(number: u64) -> Actor {
    Actor::Process(ProcessId::new(ProcessKind::Branch, number))
}

fn place() -> Place {
    Place {
        conversation: ConversationId::new("webhook:c"),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: "webhook / c".to_owned(),
    }
}

impl Tasks {
    fn put(&self, title: &str, status: Status, priority: Priority) -> u64 {
        let new = NewTask { status, priority, place: Some(place()), ..NewTask::new(title, una()) };
        self.create(new).unwrap().task.number
    }

    fn to(&self, number: u64, status: Status) -> Result<Changed, TaskError> {
        self.change(number, Change::to(status), una())
    }

    fn take(&self, number: u64, revision: u64, worker: u64) -> Option<Task> {
        let now = self.clock.now();
        let claim = move |connection: &Connection| claim(connection, number, revision, worker, now);
        match self.db.write(claim).unwrap() {
            Claim::Taken(task) => Some(*task),
            Claim::Early(_) | Claim::Gone => None,
        }
    }

    fn finish(&self, number: u64, worker: u64, end: AttemptEnd) -> Concluded {
        let now = self.clock.now();
        let conclusion = Conclusion {
            end,
            summary: Some(end.as_str().to_owned()),
            result: "done so".to_owned(),
            retries: RETRIES,
        };
        self.db.write(move |connection| conclude(connection, number, worker, &conclusion, now)).unwrap()
    }

    fn restart(&self) -> Vec<u64> {
        let now = self.clock.now();
        self.db.write(move |connection| interrupt(connection, RETRIES, now)).unwrap()
    }

    /// Brings a fresh task into any state by the ways that exist.
    fn in_state(&self, status: Status) -> u64 {
        let number = self.put("x", Status::PendingApproval, Priority::Medium);
        let worker = 1000 + number;
        let begin = || {
            let revision = self.to(number, Status::Ready).unwrap().task.revision;
            self.take(number, revision, worker).unwrap();
        };
        match status {
            Status::PendingApproval => {}
            Status::Backlog | Status::Ready => drop(self.to(number, status).unwrap()),
            Status::InProgress => begin(),
            Status::Done | Status::Failed => {
                begin();
                self.to(number, status).unwrap();
            }
        }
        assert_eq!(self.get(number).unwrap().status, status);
        number
    }
}

#[test]
fn the_store_allows_what_the_table_allows_and_nothing_else() {
    let (_folder, board) = board();
    for (from, to) in Status::ALL.into_iter().flat_map(|from| Status::ALL.map(|to| (from, to))) {
        let number = board.in_state(from);
        let revision = board.get(number).unwrap().revision;
        let changed = board.to(number, to);
        let after = board.get(number).unwrap();
        // Only a claim puts a task in progress.
        if from.can_become(to) && (from == to || to != Status::InProgress) {
            assert_eq!(after.status, to, "{from:?} to {to:?}");
            assert_eq!(after.revision, revision + u64::from(from != to), "staying is no change");
        } else {
            assert_eq!(changed.unwrap_err().kind(), Kind::Invalid, "{from:?} to {to:?}");
            assert_eq!((after.status, after.revision), (from, revision), "{from:?} to {to:?}");
        }
        assert_eq!(after.completed_at.is_some(), after.status.is_over());
        assert_eq!(after.worker.is_some(), after.status == Status::InProgress);
    }
}

#[test]
fn a_change_at_an_old_revision_is_refused() {
    let (_folder, board) = board();
    let number = board.put("water the plants", Status::Backlog, Priority::Low);
    let at = |revision| Change {
        description: Some(format!("as of {revision}")),
        expected_revision: Some(revision),
        ..Change::default()
    };
    assert_eq!(board.change(number, at(1), una()).unwrap().task.revision, 2);
    let error = board.change(number, at(1), una()).unwrap_err();
    assert!(matches!(error, TaskError::Conflict { expected: 1, found: 2, .. }), "{error}");
    assert_eq!(board.get(number).unwrap().description, "as of 1");
}

#[test]
fn the_most_urgent_comes_first_then_the_oldest() {
    let (_folder, board) = board();
    let wanted =
        [("b", Priority::Medium), ("d", Priority::Low), ("a", Priority::Critical), ("c", Priority::Medium)];
    for (title, priority) in wanted {
        board.put(title, Status::Ready, priority);
    }
    board.put("not yet", Status::PendingApproval, Priority::Critical);
    let ready: Vec<_> = board.ready(10).unwrap().into_iter().map(|task| task.title).collect();
    assert_eq!(ready, ["a", "b", "c", "d"]);
    assert_eq!(board.counts().unwrap(), [(Status::PendingApproval, 1), (Status::Ready, 4)]);
    let filter = Filter { priority: Some(Priority::Critical), limit: 10, ..Filter::default() };
    assert_eq!(board.list(&filter).unwrap().len(), 2);
    let elsewhere = Filter { conversation: Some("irc:#x".to_owned()), limit: 10, ..Filter::default() };
    assert!(board.list(&elsewhere).unwrap().is_empty());
}

#[test]
fn attempts_are_counted_and_the_last_failure_is_final() {
    let (_folder, board) = board();
    let number = board.put("x", Status::Ready, Priority::Medium);
    for worker in 1..=3 {
        let revision = board.get(number).unwrap().revision;
        assert!(board.take(number, revision + 1, worker).is_none(), "not at another revision");
        let task = board.take(number, revision, worker).unwrap();
        assert_eq!((task.attempts, task.worker), (worker as usize, Some(worker)));
        assert!(board.take(number, task.revision, 99).is_none(), "it is taken");
        let concluded = board.finish(number, worker, AttemptEnd::Failed);
        let again = worker < 3;
        assert_eq!(concluded.task.unwrap().status, if again { Status::Ready } else { Status::Failed });
        assert_eq!(matches!(concluded.news[..], [TaskNews::Ready(_)]), again);
    }
    assert!(board.finish(number, 3, AttemptEnd::Success).task.is_none(), "an attempt ends once");
    // A new approval is a new beginning.
    let task = board.to(number, Status::Ready).unwrap().task;
    assert_eq!((task.attempts, task.completed_at), (0, None));
    let ends: Vec<_> = board.attempts(number).unwrap().into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(ends, vec![Some("failed".to_owned()); 3]);
}

/// A board whose clock can be moved and whose file can be opened again.
fn pausing() -> (tempfile::TempDir, Arc<SimulatedClock>, impl Fn() -> Tasks) {
    let folder = tempfile::tempdir().unwrap();
    let clock = SimulatedClock::starting_at(Timestamp(1_000_000));
    let (file, of_board) = (folder.path().join("t.db"), clock.clone());
    let open = move || Tasks::new(Db::open_inline(&file, None).unwrap(), of_board.clone());
    (folder, clock, open)
}

const PAUSES: Retries = Retries { attempts: 10, pause: Duration::from_secs(30) };

impl Tasks {
    /// Its worker begins and fails; returns how long the hub is to wait.
    fn fail(&self, number: u64, worker: u64) -> Duration {
        let revision = self.get(number).unwrap().revision;
        assert!(self.take(number, revision, worker).is_some(), "attempt {worker} begins");
        let end = if worker.is_multiple_of(2) { AttemptEnd::Timeout } else { AttemptEnd::Failed };
        let conclusion = Conclusion { end, summary: None, result: String::new(), retries: PAUSES };
        let now = self.clock.now();
        let concluded =
            self.db.write(move |connection| conclude(connection, number, worker, &conclusion, now));
        match &concluded.unwrap().news[..] {
            [TaskNews::Ready(ready)] => ready.wait,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_failed_task_pauses_twice_as_long_each_time_also_over_a_restart() {
    let (_folder, clock, open) = pausing();
    let number = open().put("x", Status::Ready, Priority::Medium);
    for (worker, pause) in [30, 60, 120, 240, 480, 600, 600].into_iter().enumerate() {
        let worker = worker as u64 + 1;
        assert_eq!(open().fail(number, worker).as_secs(), pause);
        clock.advance(Duration::from_secs(pause) - Duration::from_millis(1));
        // Each `open` is a start of its own.
        let ready = open().ready(10).unwrap();
        assert_eq!(ready[0].wait, Duration::from_millis(1));
        assert!(open().take(number, ready[0].revision, 99).is_none(), "too early");
        clock.advance(Duration::from_millis(1));
        assert_eq!(open().ready(10).unwrap()[0].wait, Duration::ZERO);
    }
}

#[test]
fn who_comes_too_early_hears_how_long_to_wait() {
    let (_folder, clock, open) = pausing();
    let board = open();
    let number = board.put("x", Status::Ready, Priority::Medium);
    board.fail(number, 1);
    let other = board.put("y", Status::Ready, Priority::Low);
    let order: Vec<_> = board.ready(10).unwrap().iter().map(|task| task.number).collect();
    assert_eq!(order, [other, number], "what pauses comes last");
    clock.advance(Duration::from_secs(10));
    let revision = board.get(number).unwrap().revision;
    let now = board.clock.now();
    let claimed = board.db.write(move |connection| claim(connection, number, revision, 2, now)).unwrap();
    let Claim::Early(TaskNews::Ready(ready)) = claimed else { panic!("{claimed:?}") };
    assert_eq!((ready.wait.as_secs(), ready.revision), (20, revision));
    // A clock that is set back by more than any pause keeps nobody waiting.
    let board = Tasks::new(board.db.clone(), SimulatedClock::starting_at(Timestamp(5)));
    assert!(board.ready(10).unwrap().iter().all(|task| task.wait.is_zero()));
    assert!(board.take(number, revision, 2).is_some());
}

#[test]
fn who_says_that_a_task_is_ready_means_now() {
    let (_folder, _clock, open) = pausing();
    let board = open();
    type Say = fn(&Tasks, u64) -> Changed;
    let says: [Say; 3] = [
        |board, number| board.to(number, Status::Ready).unwrap(),
        |board, number| board.change(number, Change::to(Status::Ready), branch(3)).unwrap(),
        |board, number| {
            board.write(move |connection, now| approve(connection, number, &Actor::Operator, now)).unwrap()
        },
    ];
    for (worker, say) in says.into_iter().enumerate() {
        let number = board.put("x", Status::Ready, Priority::Medium);
        assert!(!board.fail(number, worker as u64 + 1).is_zero());
        // To write about it is no word that it is ready.
        let title = Change { title: Some("y".to_owned()), ..Change::default() };
        let news = board.change(number, title, una()).unwrap().news;
        assert!(matches!(&news[..], [TaskNews::Ready(ready)] if !ready.wait.is_zero()), "{news:?}");
        let changed = say(&board, number);
        assert!(matches!(&changed.news[..], [TaskNews::Ready(ready)] if ready.wait.is_zero()));
        assert_eq!(changed.task.attempts, 1, "it has failed all the same");
        assert!(board.take(number, changed.task.revision, 100 + worker as u64).is_some());
    }
}

#[test]
fn what_a_crash_cut_off_is_tried_again_as_often_as_the_limit_says() {
    let (_folder, board) = board();
    let number = board.put("x", Status::Ready, Priority::Medium);
    for worker in 1..=3 {
        let revision = board.get(number).unwrap().revision;
        board.take(number, revision, worker).unwrap();
        let quiet = board.restart();
        let after = board.get(number).unwrap();
        assert_eq!(after.status, if worker < 3 { Status::Ready } else { Status::Failed });
        assert_eq!(quiet.contains(&worker), worker < 3, "only the last one is told");
        assert!(board.attempts(number).unwrap().iter().all(|attempt| attempt.ended_at.is_some()));
    }
    assert!(board.restart().is_empty());
    // An orderly stop costs no attempt.
    let revision = board.to(number, Status::Ready).unwrap().task.revision;
    board.take(number, revision, 4).unwrap();
    let task = board.finish(number, 4, AttemptEnd::Interrupted).task.unwrap();
    assert_eq!((task.status, task.attempts), (Status::Ready, 0));
}

#[test]
fn a_task_that_is_taken_back_stops_its_worker_and_forgets_its_end() {
    let (_folder, board) = board();
    let number = board.in_state(Status::InProgress);
    let worker = board.get(number).unwrap().worker.unwrap();
    let changed = board.to(number, Status::Backlog).unwrap();
    let revision = changed.task.revision;
    assert_eq!(changed.news, [TaskNews::Withdrawn { number, revision }]);
    assert!(board.finish(number, worker, AttemptEnd::Success).task.is_none());
    let after = board.get(number).unwrap();
    assert_eq!((after.status, after.result), (Status::Backlog, None));
    assert_eq!(board.attempts(number).unwrap()[0].outcome.as_deref(), Some("cancelled"));
    let number = board.in_state(Status::InProgress);
    let news = board.to(number, Status::Ready).unwrap().news;
    assert!(matches!(news[..], [TaskNews::Withdrawn { .. }, TaskNews::Ready(_)]), "{news:?}");
}

#[test]
fn a_process_does_not_approve_what_it_proposed() {
    let (_folder, board) = board();
    let new = NewTask { place: Some(place()), ..NewTask::new("x", branch(7)) };
    let number = board.create(new).unwrap().task.number;
    let error = board.change(number, Change::to(Status::Ready), branch(7)).unwrap_err();
    assert!(error.to_string().contains("a person has to approve"), "{error}");
    let changed = board.change(number, Change::to(Status::Ready), branch(8)).unwrap();
    assert!(matches!(&changed.news[..], [TaskNews::Ready(ready)] if !ready.by_person));
    // Put aside and approved by a person.
    board.to(number, Status::Backlog).unwrap();
    let changed = board.to(number, Status::Ready).unwrap();
    assert!(matches!(&changed.news[..], [TaskNews::Ready(ready)] if ready.by_person));
}

#[test]
fn texts_and_lists_have_bounds() {
    let (_folder, board) = board();
    let long = |bytes: usize| "x".repeat(bytes + 1);
    let subtask = |title: &str| Subtask { title: title.to_owned(), completed: false };
    let bad: Vec<NewTask> = vec![
        NewTask::new(" \n ", una()),
        NewTask::new(long(TITLE_BYTES_MAX), una()),
        NewTask { description: long(change::DESCRIPTION_BYTES_MAX), ..NewTask::new("x", una()) },
        NewTask { subtasks: vec![subtask("a"); SUBTASKS_MAX + 1], ..NewTask::new("x", una()) },
        NewTask { subtasks: vec![subtask("")], ..NewTask::new("x", una()) },
        NewTask { status: Status::InProgress, ..NewTask::new("x", una()) },
        NewTask { status: Status::Done, ..NewTask::new("x", una()) },
        NewTask {
            metadata: serde_json::from_value(json!({ "a": long(METADATA_BYTES_MAX) })).unwrap(),
            ..NewTask::new("x", una())
        },
    ];
    for new in bad {
        let title = new.title.clone();
        assert!(board.create(new).is_err(), "{title}");
    }
    let new =
        NewTask { subtasks: vec![subtask(" a\nb "), subtask("c")], ..NewTask::new(" two\n words ", una()) };
    let task = board.create(new).unwrap().task;
    assert_eq!((task.title.as_str(), task.subtasks[0].title.as_str()), ("two words", "a b"));
    let complete = |which| {
        board.change(task.number, Change { complete_subtask: Some(which), ..Change::default() }, una())
    };
    assert!(complete(0).is_err() && complete(3).is_err());
    let subtasks = complete(2).unwrap().task.subtasks;
    assert!(!subtasks[0].completed && subtasks[1].completed);
}

#[test]
fn the_board_has_a_bound() {
    let (_folder, board) = board();
    let now = Timestamp(1);
    board
        .db
        .write(move |connection| {
            let new = NewTask::new("x", una());
            (0..OPEN_TASKS_MAX).try_for_each(|_| create(connection, new.clone(), now).map(drop))
        })
        .unwrap();
    assert!(matches!(board.create(NewTask::new("one more", una())), Err(TaskError::Full(_))));
    let number = board.list(&Filter { limit: 1, ..Filter::default() }).unwrap()[0].number;
    let revision = board.to(number, Status::Ready).unwrap().task.revision;
    board.take(number, revision, 1).unwrap();
    board.finish(number, 1, AttemptEnd::Success);
    assert!(board.create(NewTask::new("one more", una())).is_ok());
}

/// A small generator, so that a failing case can be printed and repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }
}

/// Several threads change, claim, end and withdraw the same few tasks. Each records what it was told;
/// together that must be one row of revisions, each step of it allowed, with one worker at a time.
#[test]
fn concurrent_changes_keep_the_table_and_give_each_task_to_one_worker() {
    const THREADS: u64 = 6;
    const STEPS: u64 = 150;
    const TASKS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let (db, handle) = Db::open(&folder.path().join("t.db"), "test").unwrap();
    let board = Arc::new(Tasks::new(db.clone(), SimulatedClock::starting_at(Timestamp(1000))));
    let numbers: Vec<u64> = (0..TASKS).map(|_| board.put("x", Status::Ready, Priority::Medium)).collect();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (board, numbers) = (board.clone(), numbers.clone());
            std::thread::spawn(move || wild(&board, &numbers, thread, STEPS))
        })
        .collect();
    let mut seen: BTreeMap<(u64, u64), (Status, Option<u64>)> = BTreeMap::new();
    for task in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        let before = seen.insert((task.number, task.revision), (task.status, task.worker));
        assert!(before.is_none(), "revision {} of task {} came about twice", task.revision, task.number);
    }
    db.close();
    handle.join().unwrap();
    for number in numbers {
        let mut last = (1, Status::Ready);
        let mut claims = 0;
        for ((_, revision), (status, worker)) in seen.range((number, 2)..(number + 1, 0)) {
            assert_eq!(*revision, last.0 + 1, "task {number}: every change is known");
            assert!(last.1.can_become(*status), "task {number}: {:?} to {status:?}", last.1);
            assert_eq!(worker.is_some(), *status == Status::InProgress);
            claims += usize::from(last.1 != *status && *status == Status::InProgress);
            last = (*revision, *status);
        }
        let attempts = board.attempts(number).unwrap();
        assert_eq!(attempts.len(), claims, "one attempt for each claim");
        let live = attempts.iter().filter(|attempt| attempt.ended_at.is_none()).count();
        assert_eq!(live, usize::from(last.1 == Status::InProgress));
        assert!(claims > 3, "hardly anything happened to task {number}");
    }
}

/// Every task as it was told after a change.
fn wild(board: &Tasks, numbers: &[u64], thread: u64, steps: u64) -> Vec<Task> {
    let mut dice = Dice(thread + 1);
    let mut told = Vec::new();
    for step in 0..steps {
        let number = numbers[dice.roll(numbers.len())];
        let task = board.get(number).unwrap();
        let worker = thread * steps + step + 1;
        match dice.roll(10) {
            0..=3 => told.extend(board.take(number, task.revision, worker)),
            4..=6 => {
                let end =
                    [AttemptEnd::Success, AttemptEnd::Failed, AttemptEnd::Cancelled, AttemptEnd::Interrupted]
                        [dice.roll(4)];
                let concluded = board.finish(number, task.worker.unwrap_or(worker), end);
                told.extend(concluded.task);
            }
            _ => {
                let to = Status::ALL[dice.roll(Status::ALL.len())];
                let expected = (dice.roll(2) == 0).then_some(task.revision);
                let change = Change { expected_revision: expected, ..Change::to(to) };
                // To stay is no change: its revision is known from elsewhere.
                let told_new =
                    |changed: Changed| (changed.before != changed.task.status).then_some(changed.task);
                told.extend(board.change(number, change, una()).ok().and_then(told_new));
            }
        }
    }
    told
}

#[test]
fn what_another_agent_asks_for_is_one_task_and_goes_back_once() {
    let (_folder, board) = board();
    let asked = |key: &str| {
        let by = AgentId::new("den");
        let asked = Some(Asked { by: by.clone(), key: key.to_owned() });
        NewTask { status: Status::Ready, asked, ..NewTask::new("count", Actor::Agent(by)) }
    };
    let take = |key: &str| {
        let new = asked(key);
        board.write(move |connection, now| super::take(connection, new, now)).unwrap()
    };
    let first = take("1@1");
    assert!(matches!(&first.news[..], [TaskNews::Ready(ready)] if ready.place.is_none()));
    let again = take("1@1");
    assert_eq!(
        (again.task.number, again.news),
        (first.task.number, first.news.clone()),
        "the news may be lost"
    );
    assert_ne!(take("2@1").task.number, first.task.number);
    assert_eq!(board.get(1).unwrap().created_by, Actor::Agent(AgentId::new("den")));
    let unreturned = || board.unreturned(0, 10).unwrap().iter().map(|task| task.number).collect::<Vec<_>>();
    assert!(unreturned().is_empty());
    let conclude = |end| {
        let task = board.get(1).unwrap();
        board.take(1, task.revision, task.revision).unwrap();
        let conclusion = Conclusion { end, summary: None, result: "12".to_owned(), retries: RETRIES };
        let write = move |connection: &Connection| {
            super::conclude(connection, 1, task.revision, &conclusion, Timestamp(1))
        };
        board.db.write(write).unwrap().news
    };
    assert!(matches!(conclude(AttemptEnd::Failed)[..], [TaskNews::Ready(_)]), "it is tried again");
    assert!(unreturned().is_empty());
    assert_eq!(conclude(AttemptEnd::Success), [TaskNews::Answered]);
    assert_eq!(unreturned(), [1]);
    board.returned(1).unwrap();
    assert!(unreturned().is_empty());
    // Also by a person's word, and not for tasks of one's own.
    assert_eq!(board.to(2, Status::Backlog).unwrap().news.len(), 1);
    assert!(unreturned().is_empty(), "put aside is not over");
}
