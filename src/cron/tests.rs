//! Jobs and their runs in the database.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::db::rusqlite::Connection;

const NOW: Timestamp = Timestamp(1_795_255_200_000); // 2026-11-21T10:00:00Z, a Saturday

struct Bench {
    cron: Cron,
    _folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open_inline(&folder.path().join("db"), None).unwrap();
    Bench { cron: Cron::new(db, Zone::utc()), _folder: folder }
}

fn target() -> Target {
    Target {
        conversation: ConversationId::new("webhook:c"),
        instance: InstanceId::new("webhook"),
        direct: true,
        name: "webhook / c".to_owned(),
    }
}

fn hourly(name: &str) -> NewJob {
    NewJob {
        name: Some(name.to_owned()),
        prompt: "say the hour".to_owned(),
        expression: None,
        interval: Some(Duration::from_secs(3600)),
        active: ActiveHours::ALWAYS,
        once: false,
        target: target(),
        timeout: Duration::from_secs(100),
    }
}

fn hours(count: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(3600 * count))
}

impl Bench {
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.cron.db().write(work)
    }

    /// What a look does: claims everything that is due.
    fn claim(&self, now: Timestamp) -> Vec<i64> {
        let due = due(&self.cron.watched(now).unwrap(), now, MissedSlots::RunOnce, &Zone::utc());
        self.claim_these(due, now)
    }

    fn claim_these(&self, due: Vec<Due>, now: Timestamp) -> Vec<i64> {
        let claimed = self.write(move |connection| {
            due.iter().map(|due| store::claim(connection, due, now)).collect::<Result<Vec<_>, _>>()
        });
        claimed.unwrap().into_iter().flatten().collect()
    }

    fn end(&self, execution: i64, state: State) -> Result<Ended, DbError> {
        self.write(move |connection| store::end(connection, execution, state, None, hours(100)))
    }

    fn states(&self) -> Vec<String> {
        let mut states: Vec<_> = self.cron.runs(None, 50).unwrap().into_iter().map(|run| run.state).collect();
        states.reverse();
        states
    }
}

#[test]
fn what_would_never_run_is_refused_with_the_reason() {
    let bench = bench();
    let sound = hourly("a");
    let expression =
        |text: &str| NewJob { expression: Some(text.to_owned()), interval: None, ..sound.clone() };
    let cases = [
        (NewJob { name: Some("A b".to_owned()), ..sound.clone() }, "a-z"),
        (NewJob { name: Some(String::new()), ..sound.clone() }, "a-z"),
        (NewJob { prompt: "  ".to_owned(), ..sound.clone() }, "prompt"),
        (NewJob { prompt: "é".repeat(MAX_PROMPT_CHARACTERS + 1), ..sound.clone() }, "prompt"),
        (NewJob { interval: Some(Duration::from_secs(59)), ..sound.clone() }, "60"),
        (NewJob { interval: None, ..sound.clone() }, "either"),
        (NewJob { expression: Some("0 0 * * *".to_owned()), ..sound.clone() }, "either"),
        (NewJob { active: ActiveHours { start: 24, end: 3 }, ..sound.clone() }, "0 to 23"),
        (NewJob { timeout: Duration::from_secs(9), ..sound.clone() }, "timeout_secs"),
        (expression("0 0 31 2 *"), "never run"),
        (NewJob { active: ActiveHours { start: 1, end: 2 }, ..expression("0 5 * * *") }, "never run"),
        (expression("every day"), "2 fields"),
    ];
    for (new, reason) in cases {
        let error = bench.cron.create(new, NOW).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    bench.cron.create(sound.clone(), NOW).unwrap();
    assert!(matches!(bench.cron.create(sound.clone(), NOW), Err(CronError::Exists(_))));
    let soon = NewJob { interval: Some(Duration::from_secs(1)), once: true, name: None, ..sound };
    assert_eq!(bench.cron.create(soon, NOW).unwrap().name, "job-2");
}

#[test]
fn jobs_are_stored_listed_switched_and_deleted() {
    let bench = bench();
    let weekly = NewJob {
        expression: Some("30 9 * * mon".to_owned()),
        interval: None,
        active: ActiveHours { start: 8, end: 20 },
        ..hourly("weekly")
    };
    let made = bench.cron.create(weekly, NOW).unwrap();
    bench.cron.create(hourly("a"), NOW).unwrap();
    let jobs = bench.cron.jobs().unwrap();
    assert_eq!(jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["a", "weekly"]);
    assert_eq!(jobs[1], made);
    let monday = Timestamp::parse_rfc3339("2026-11-23T09:30:00Z").unwrap();
    assert_eq!(bench.cron.next_slot(&made, NOW), Some(monday));
    let off = bench.cron.toggle("weekly", false, hours(1)).unwrap();
    assert_eq!((off.enabled, bench.cron.next_slot(&off, NOW)), (false, None));
    assert_eq!(bench.cron.watched(NOW).unwrap().len(), 1);
    let on = bench.cron.toggle("weekly", true, hours(2)).unwrap();
    assert!(on.enabled && on.timing.anchor == hours(2));
    bench.cron.delete("weekly").unwrap();
    assert!(matches!(bench.cron.delete("weekly"), Err(CronError::NotFound(_))));
    assert!(matches!(bench.cron.toggle("weekly", true, NOW), Err(CronError::NotFound(_))));
}

#[test]
fn a_slot_is_claimed_once_whatever_the_clock_says() {
    let bench = bench();
    bench.cron.create(hourly("a"), NOW).unwrap();
    let jobs = bench.cron.watched(hours(1)).unwrap();
    assert_eq!(wait(&jobs, hours(1), &Zone::utc()), Some(Duration::from_secs(3600)));
    let stale = due(&jobs, hours(1), MissedSlots::RunOnce, &Zone::utc());
    let first = bench.claim(hours(1));
    assert_eq!(first.len(), 1);
    bench.end(first[0], State::Succeeded).unwrap();
    // The same look again, by somebody who has not seen the claim.
    assert!(bench.claim_these(stale.clone(), hours(1)).is_empty());
    assert!(bench.claim(hours(1)).is_empty());
    let second = bench.claim(hours(2));
    bench.end(second[0], State::Succeeded).unwrap();
    // The clock goes back by an hour and comes again.
    assert!(bench.claim(hours(1)).is_empty() && bench.claim(hours(2)).is_empty());
    assert_eq!(bench.claim(hours(3)).len(), 1);
    // A job that was switched off or made anew in the meantime is not the one that was seen.
    bench.cron.toggle("a", false, hours(3)).unwrap();
    assert!(bench.claim(hours(4)).is_empty() && bench.claim_these(stale.clone(), hours(4)).is_empty());
    bench.cron.delete("a").unwrap();
    bench.cron.create(hourly("a"), NOW).unwrap();
    assert!(bench.claim_these(stale, hours(4)).is_empty());
}

#[test]
fn a_job_for_one_time_is_over_with_its_claim_and_makes_room_for_its_name() {
    let bench = bench();
    bench.cron.create(NewJob { once: true, ..hourly("a") }, NOW).unwrap();
    // Years late is not too late for a reminder.
    let claimed = bench.claim(hours(40_000));
    assert_eq!(claimed.len(), 1);
    assert!(bench.claim(hours(40_001)).is_empty());
    assert!(!bench.cron.jobs().unwrap()[0].enabled);
    bench.end(claimed[0], State::Succeeded).unwrap();
    bench.cron.create(hourly("a"), hours(40_001)).unwrap();
    assert_eq!(bench.cron.jobs().unwrap().len(), 1);
}

#[test]
fn a_run_that_goes_on_lets_the_next_slot_pass() {
    let bench = bench();
    bench.cron.create(hourly("a"), NOW).unwrap();
    let first = bench.claim(hours(1));
    assert!(bench.claim(hours(2)).is_empty());
    assert_eq!(bench.states(), ["running", "skipped"]);
    bench.end(first[0], State::Succeeded).unwrap();
    assert!(bench.claim(hours(2)).is_empty(), "skipped is skipped");
    assert_eq!(bench.claim(hours(3)).len(), 1);
}

#[test]
fn three_failures_in_a_row_switch_a_job_off_and_a_run_ends_once() {
    let bench = bench();
    bench.cron.create(hourly("a"), NOW).unwrap();
    let ends = [
        (State::Failed, false),
        (State::TimedOut, false),
        (State::Succeeded, false),
        (State::Failed, false),
        (State::Interrupted, false),
        (State::Failed, false),
        (State::TimedOut, true),
    ];
    for (hour, (state, switched_off)) in (1..).zip(ends) {
        let run = bench.claim(hours(hour))[0];
        let said = bench.write(move |connection| store::set_outcome(connection, run, "first")).is_ok();
        bench.write(move |connection| store::set_outcome(connection, run, "last")).unwrap();
        let ended = bench.end(run, state).unwrap();
        assert_eq!(ended.switched_off, switched_off, "hour {hour}");
        assert!(said && ended.outcome.as_deref() == Some("last"));
        assert!(matches!(bench.end(run, State::Succeeded), Err(DbError::Refused(_))));
    }
    assert!(bench.claim(hours(8)).is_empty());
    let on = bench.cron.toggle("a", true, hours(8)).unwrap();
    assert_eq!((on.enabled, on.failures), (true, 0));
}

#[test]
fn there_is_a_most_of_jobs() {
    let bench = bench();
    for number in 0..MAX_JOBS {
        bench.cron.create(hourly(&format!("n{number}")), NOW).unwrap();
    }
    assert!(matches!(bench.cron.create(hourly("more"), NOW), Err(CronError::Full)));
    bench.cron.toggle("n7", false, NOW).unwrap();
    bench.cron.create(hourly("more"), NOW).unwrap();
    assert!(matches!(bench.cron.toggle("n7", true, NOW), Err(CronError::Full)));
    bench.cron.toggle("n8", true, NOW).unwrap();
}
