//! What is promised of jobs, checked at the end.

#![allow(unreachable_pub)] // one of the parts of one test

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spacebot::cron::{Execution, MAX_FAILURES};
use spacebot::id::{InstanceId, OutboxId};
use spacebot::message::{Content, Outbox};

use crate::INSTANCE;
use crate::world::World;

impl World {
    fn said(&self) -> Vec<String> {
        let outbox =
            self.life.parts.conversations.pending(&InstanceId::new(INSTANCE), None, OutboxId(0), 100_000);
        let text = |content| match content {
            Content::Text { text } => text,
            other => panic!("{other:?}"),
        };
        outbox.unwrap().into_iter().map(|answer| text(answer.content)).collect()
    }

    pub fn check(&self) -> usize {
        let runs: Vec<Execution> = self.life.parts.cron().runs(None, 100_000).unwrap();
        let said = self.said();
        let count =
            |text: &str| said.iter().filter(|said| said.split("\n\n").any(|part| part == text)).count();
        let mut slots = BTreeSet::new();
        for run in &runs {
            assert!(slots.insert((&run.job, run.slot)), "a slot has two runs: {run:?}");
            assert!(run.state != "running" && run.ended_at.is_some(), "a run has no end: {run:?}");
            let outcome = format!("{}@{}", run.job, run.slot.0);
            let told = usize::from(run.outcome.is_some());
            assert_eq!(count(&outcome), told, "told once if there was something to tell: {run:?}");
            assert!(
                run.outcome
                    .as_ref()
                    .is_none_or(|outcome| said.iter().any(|said| said.contains(outcome.as_str())))
            );
            assert!(run.state != "skipped" || !self.begun.borrow().contains(&run.id));
            // Two hours are the most that anything but a reminder may be late.
            let late = run.claimed_at.since(run.slot);
            assert!(run.job.starts_with("once") || late <= Duration::from_secs(7_200), "{run:?}");
        }
        let claims: Vec<_> = runs.iter().rev().map(|run| run.claimed_at).collect();
        assert!(claims.is_sorted(), "a clock that is behind is not trusted");
        let sure = self.reminders.iter().map(|name| (name, true));
        for (once, sure) in sure.chain(self.doubtful.iter().map(|name| (name, false))) {
            let (name, lost) = (format!("{once}@"), format!("\"{once}\""));
            let of_it: Vec<_> = runs.iter().filter(|run| run.job == *once).collect();
            if !sure && of_it.is_empty() {
                continue;
            }
            assert_eq!(of_it.len(), 1, "{once} has run once");
            let told = said.iter().filter(|said| said.contains(&name) || said.contains(&lost)).count();
            let silent = of_it[0].state == "succeeded" && of_it[0].outcome.is_none();
            assert_eq!(told, usize::from(!silent), "{once}: {:?}", of_it[0]);
        }
        self.check_breakers(&runs, &said);
        runs.len()
    }

    /// What fails three times in a row is switched off and says so once, and does not run again by itself.
    fn check_breakers(&self, runs: &[Execution], said: &[String]) {
        let mut switched_on = self.switched_on.clone();
        let mut jobs: BTreeMap<&str, (u32, usize)> = BTreeMap::new();
        for run in runs.iter().rev().filter(|run| run.state != "skipped") {
            let (failures, trips) = jobs.entry(&run.job).or_default();
            let again = |(job, last): &mut (String, i64)| *job == run.job && *last < run.id;
            if switched_on.extract_if(.., again).count() > 0 {
                *failures = 0;
            }
            assert!(*failures < MAX_FAILURES, "it has failed too often to run by itself: {run:?}");
            match run.state.as_str() {
                "failed" | "timed_out" => *failures += 1,
                "succeeded" => *failures = 0,
                _ => {}
            }
            *trips += usize::from(*failures == MAX_FAILURES && !run.job.starts_with("once"));
        }
        let enabled = self.life.parts.cron().jobs().unwrap();
        for (job, (failures, trips)) in jobs.into_iter().filter(|(job, _)| !job.starts_with("once")) {
            let words = format!("\"{job}\" has failed three times");
            assert_eq!(said.iter().filter(|said| said.contains(&words)).count(), trips, "{job}");
            let off = failures == MAX_FAILURES && !switched_on.iter().any(|(name, _)| name == job);
            assert_eq!(enabled.iter().any(|one| one.name == job && !one.enabled), off, "{job}: {failures}");
        }
    }

    /// How often a job has switched itself off.
    pub fn trips(&self) -> usize {
        self.said().iter().filter(|said| said.contains("has failed three times")).count()
    }
}
