//! The cortex: one errand after a change, backoff, rest, and nothing while nothing changes.

use super::*;
use crate::event::Errand;

fn errands(bench: &mut Bench) -> Vec<(ProcessId, Errand)> {
    let errand = |job: Job| match job.work {
        Work::Cortex { errand, .. } => (job.process, errand),
        other => panic!("no errand: {other:?}"),
    };
    bench.started().into_iter().map(errand).collect()
}

fn one_errand(bench: &mut Bench) -> (ProcessId, Errand) {
    let mut errands = errands(bench);
    assert_eq!(errands.len(), 1, "{errands:?}");
    errands.remove(0)
}

fn state(bench: &Bench) -> String {
    bench.hub.cortex_reports(bench.now).remove(0).state
}

/// Warmed up, with nothing to do.
fn warm() -> Bench {
    let mut bench = with_cortex(LimitsConfig::default());
    bench.event(Event::ClockChanged);
    assert_eq!(state(&bench), "cold");
    bench.wait(2000);
    let (process, errand) = one_errand(&mut bench);
    assert_eq!((errand, state(&bench).as_str()), (Errand::Tend, "warming"));
    bench.exit(process, How::Tended(Vec::new()));
    assert_eq!(state(&bench), "warm");
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
    bench.actions.clear();
    bench
}

fn failed() -> How {
    How::Failed(Kind::Transient, "no luck".to_owned())
}

#[test]
fn a_change_starts_one_pass_and_no_more_than_one_within_the_interval() {
    let mut bench = warm();
    let task = |number| TaskNews::Withdrawn { number, revision: 1 };
    let tell = |bench: &mut Bench, number| {
        let news = vec![task(number)];
        bench.event(Event::Command(Command::Tasks { agent: AgentId::new(MAIN), news }));
    };
    tell(&mut bench, 1);
    tell(&mut bench, 2);
    assert!(errands(&mut bench).is_empty(), "more may come");
    // The warm-up was a pass too.
    bench.wait(27_900);
    assert!(errands(&mut bench).is_empty());
    bench.wait(2200);
    let (process, _) = one_errand(&mut bench);
    tell(&mut bench, 3);
    bench.wait(60_000);
    assert!(errands(&mut bench).is_empty(), "one at a time");
    bench.exit(process, How::Tended(Vec::new()));
    bench.wait(0);
    let (process, _) = one_errand(&mut bench);
    bench.exit(process, How::Tended(Vec::new()));
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn an_idle_day_with_memories_and_jobs_that_are_not_due_starts_nothing() {
    let mut bench = warm();
    let look = Look { runs: Vec::new(), next: Some(Duration::from_secs(30 * 86_400)) };
    bench.event(Event::Looked { agent: AgentId::new(MAIN), look: Some(look) });
    for _ in 0..24 * 60 {
        bench.wait(60_000);
    }
    assert!(bench.actions.is_empty(), "{:?}", bench.actions);
}

#[test]
fn turns_and_the_cortex_itself_are_no_change() {
    let mut bench = warm();
    let turn = bench.message("c", 1).one();
    bench.turned(turn.process, 1);
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn what_a_pass_wants_follows_and_errands_run_one_after_the_other() {
    let mut bench = warm();
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(30_000);
    let (process, _) = one_errand(&mut bench);
    let after = Duration::from_secs;
    bench.exit(process, How::Tended(vec![(Errand::Smooth, after(10)), (Errand::Profile, after(0))]));
    bench.wait(0);
    let (profile, errand) = one_errand(&mut bench);
    assert_eq!(errand, Errand::Profile);
    bench.wait(20_000);
    assert!(errands(&mut bench).is_empty(), "one at a time");
    bench.exit(profile, How::Tended(Vec::new()));
    bench.wait(0);
    let (smooth, errand) = one_errand(&mut bench);
    assert_eq!(errand, Errand::Smooth);
    bench.exit(smooth, How::Tended(Vec::new()));
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn what_fails_waits_longer_each_time_and_then_rests_until_something_changes() {
    let mut bench = warm();
    let main = AgentId::new(MAIN);
    bench.hub.cortex_changed(&main, bench.now);
    bench.wait(30_000);
    let (first, _) = one_errand(&mut bench);
    bench.exit(first, failed());
    assert_eq!(state(&bench), "degraded");
    for wait in [30, 60] {
        bench.wait(wait * 1000 - 1);
        assert!(errands(&mut bench).is_empty());
        bench.wait(1);
        let (process, _) = one_errand(&mut bench);
        bench.exit(process, failed());
    }
    assert_eq!(bench.hub.next_deadline(), None, "it rests, and nothing wakes it");
    assert!(!bench.hub.cortex_reports(bench.now)[0].resting.is_empty());
    bench.hub.cortex_changed(&main, bench.now);
    bench.wait(1_799_000);
    assert!(errands(&mut bench).is_empty());
    bench.wait(1000);
    let jobs = bench.started();
    assert!(
        matches!(&jobs[..], [Job { work: Work::Cortex { notes, .. }, .. }] if notes.len() == 1),
        "and what happened is written by the next pass: {jobs:?}"
    );
    bench.exit(jobs[0].process, How::Tended(Vec::new()));
    assert_eq!(state(&bench), "warm");
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn a_wrong_key_is_not_tried_again() {
    let mut bench = warm();
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(30_000);
    let (tend, _) = one_errand(&mut bench);
    bench.exit(tend, How::Tended(vec![(Errand::Smooth, Duration::ZERO)]));
    bench.wait(0);
    let (smooth, _) = one_errand(&mut bench);
    bench.exit(smooth, How::Failed(Kind::Auth, "wrong key".to_owned()));
    assert_eq!(bench.hub.next_deadline(), None);
    // Still worth while, says the next pass.
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(30_000);
    let (tend, _) = one_errand(&mut bench);
    bench.exit(tend, How::Tended(vec![(Errand::Smooth, Duration::ZERO)]));
    assert_eq!(bench.hub.next_deadline(), None, "but it rests");
}

#[test]
fn without_a_cortex_nothing_runs_and_a_stop_does_not_wait_for_one() {
    let mut without = bench(LimitsConfig::default());
    without.event(Event::ClockChanged);
    without.hub.cortex_changed(&AgentId::new(MAIN), without.now);
    assert_eq!(without.hub.next_deadline(), None);
    assert_eq!(state(&without), "off");
    let mut bench = with_cortex(LimitsConfig::default());
    bench.event(Event::ClockChanged).wait(2000);
    let (process, _) = one_errand(&mut bench);
    bench.event(Event::Stop);
    assert_eq!(bench.cancelled(), [(process, StopReason::Shutdown)]);
    bench.exit(process, How::Cancelled);
    assert!(matches!(bench.actions[..], [Action::Exit]), "{:?}", bench.actions);
}
