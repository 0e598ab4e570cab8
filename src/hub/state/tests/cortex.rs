//! The cortex: one errand after a change, backoff, rest, and nothing while nothing changes.

use super::*;
use crate::event::{DriveEnd, Errand, Observation};

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

/// A pass after a change, and what it says is worth while next.
fn look(bench: &mut Bench, wants: &[(Errand, u64)]) {
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(30_000);
    let (tend, errand) = one_errand(bench);
    assert_eq!(errand, Errand::Tend);
    let wants = wants.iter().map(|(errand, seconds)| (*errand, Duration::from_secs(*seconds)));
    bench.exit(tend, How::Tended(wants.collect()));
    bench.wait(0);
}

#[test]
fn what_is_put_together_has_one_timer_that_the_last_look_sets() {
    let mut bench = warm();
    look(&mut bench, &[(Errand::Intraday, 14_400), (Errand::Daily, 40_000)]);
    assert_eq!(bench.hub.next_deadline(), Some(bench.now + Duration::from_secs(14_400)));
    // Fewer are left than were thought.
    look(&mut bench, &[(Errand::Daily, 30_000)]);
    assert_eq!(bench.hub.next_deadline(), Some(bench.now + Duration::from_secs(30_000)));
    look(&mut bench, &[(Errand::Intraday, 0)]);
    let (paragraph, errand) = one_errand(&mut bench);
    assert_eq!(errand, Errand::Intraday);
    assert_eq!(bench.hub.next_deadline().map(|at| at > bench.now), Some(true), "only its time-out");
    bench.exit(paragraph, How::Tended(vec![(Errand::Daily, Duration::from_secs(20_000))]));
    assert_eq!(bench.hub.next_deadline(), Some(bench.now + Duration::from_secs(20_000)));
    bench.wait(20_000_000);
    let (summary, errand) = one_errand(&mut bench);
    assert_eq!(errand, Errand::Daily);
    bench.exit(summary, How::Tended(Vec::new()));
    assert_eq!(bench.hub.next_deadline(), None, "nothing is left, and nothing wakes it");
}

#[test]
fn a_paragraph_that_fails_is_tried_again_every_five_minutes_at_most_and_rests_in_the_end() {
    let cortex = CortexConfig { circuit_breaker_threshold: 7, ..CortexConfig::default() };
    let mut bench = with_cortex(LimitsConfig { cortex, ..LimitsConfig::default() });
    bench.event(Event::ClockChanged).wait(2000);
    let (first, _) = one_errand(&mut bench);
    bench.exit(first, How::Tended(vec![(Errand::Intraday, Duration::ZERO)]));
    bench.wait(0);
    for wait in [30, 60, 120, 240, 300, 300] {
        let (process, errand) = one_errand(&mut bench);
        assert_eq!(errand, Errand::Intraday);
        bench.exit(process, failed());
        bench.wait(wait * 1000 - 1);
        assert!(errands(&mut bench).is_empty(), "{wait}");
        bench.wait(1);
    }
    let (process, _) = one_errand(&mut bench);
    bench.exit(process, failed());
    assert_eq!(bench.hub.next_deadline(), None, "it rests");
    look(&mut bench, &[(Errand::Intraday, 0)]);
    assert!(errands(&mut bench).is_empty(), "half an hour, whatever happens");
    bench.wait(1_800_000);
    look(&mut bench, &[(Errand::Intraday, 0)]);
    assert_eq!(one_errand(&mut bench).1, Errand::Intraday);
}

#[test]
fn a_look_does_not_take_back_what_is_tried_again() {
    let cortex = CortexConfig { tick_interval: Duration::from_secs(5), ..CortexConfig::default() };
    let mut bench = with_cortex(LimitsConfig { cortex, ..LimitsConfig::default() });
    bench.event(Event::ClockChanged).wait(2000);
    let (first, _) = one_errand(&mut bench);
    bench.exit(first, How::Tended(vec![(Errand::Intraday, Duration::ZERO)]));
    bench.wait(0);
    let (process, _) = one_errand(&mut bench);
    bench.exit(process, failed());
    let again = bench.now + Duration::from_secs(30);
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(5000);
    let (tend, _) = one_errand(&mut bench);
    bench.exit(tend, How::Tended(vec![(Errand::Intraday, Duration::ZERO)]));
    assert_eq!(bench.hub.next_deadline(), Some(again), "neither sooner nor never");
}

#[test]
fn a_turn_that_could_not_be_answered_is_a_change() {
    let mut bench = warm();
    let turn = bench.message("c", 1).one();
    bench.exit(turn.process, How::Failed(Kind::Invalid, "no".to_owned()));
    let apology = bench.one();
    assert!(matches!(apology.work, Work::Apology { .. }));
    bench.turned(apology.process, 1);
    bench.wait(30_000);
    assert_eq!(one_errand(&mut bench).1, Errand::Tend);
}

#[test]
fn a_clock_that_is_set_is_looked_at_only_where_something_waits_for_it() {
    let mut bench = warm();
    bench.event(Event::ClockChanged).wait(60_000);
    assert!(errands(&mut bench).is_empty());
    look(&mut bench, &[(Errand::Daily, 40_000)]);
    bench.event(Event::ClockChanged).wait(30_000);
    let (process, errand) = one_errand(&mut bench);
    assert_eq!(errand, Errand::Tend);
    bench.exit(process, How::Tended(Vec::new()));
    assert_eq!(bench.hub.next_deadline(), None, "the day is another one");
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

fn worker(bench: &mut Bench) -> ProcessId {
    let turn = bench.message("c", 1).one();
    bench.ask(turn.process, Ask::SpawnWorker { task: "dig".to_owned(), interactive: true, task_type: None });
    bench.turned(turn.process, 1);
    bench.one().process
}

/// Answers what the hub asked about signs of life.
fn felt(bench: &mut Bench, quiet: Option<u64>) -> usize {
    let asked: Vec<_> = std::mem::take(&mut bench.actions)
        .into_iter()
        .filter_map(|action| match action {
            Action::Feel { process, .. } => Some(process),
            _ => None,
        })
        .collect();
    for process in &asked {
        let quiet = quiet.map(Duration::from_secs);
        bench.event(Event::Felt { agent: AgentId::new(MAIN), process: *process, quiet });
    }
    asked.len()
}

#[test]
fn who_does_nothing_is_ended_once_and_who_asks_a_model_or_waits_is_not() {
    let cortex = CortexConfig { tick_interval: Duration::from_secs(3600), ..CortexConfig::default() };
    let limits = LimitsConfig {
        worker_timeout: Duration::from_secs(80_000),
        worker_idle_timeout: Duration::from_secs(80_000),
        cortex,
        ..LimitsConfig::default()
    };
    let mut bench = with_cortex(limits);
    let worker = worker(&mut bench);
    bench.wait(599_000);
    assert_eq!(felt(&mut bench, Some(599)), 0, "not yet");
    bench.wait(1000);
    assert_eq!(felt(&mut bench, None), 1, "it asks a model");
    bench.wait(600_000);
    assert_eq!(felt(&mut bench, Some(200)), 1);
    bench.wait(399_000);
    assert_eq!(felt(&mut bench, Some(0)), 0, "as long as its patience goes from the last sign");
    bench.wait(1000);
    assert_eq!(felt(&mut bench, Some(0)), 1, "the hub was busy, the process was not");
    bench.process(worker, What::Waiting);
    let relaying = bench.wait(500).one();
    bench.turned(relaying.process, 1);
    bench.wait(6_000_000);
    assert_eq!(felt(&mut bench, Some(6000)), 0, "it waits for a person");
    let turn = bench.message("c", 2).one();
    bench.process(worker, What::Works);
    bench.turned(turn.process, 2);
    bench.wait(600_000);
    assert_eq!(felt(&mut bench, Some(600)), 1);
    assert_eq!(bench.cancelled(), [(worker, StopReason::Timeout)]);
    bench.wait(600_000);
    assert_eq!(felt(&mut bench, Some(1200)), 0);
    assert_eq!(bench.cancelled(), [], "once");
    bench.exit(worker, How::Finished);
    let cortex = &bench.hub.agents[&AgentId::new(MAIN)].cortex;
    let kinds: Vec<_> = cortex.noted().collect();
    assert_eq!(kinds, ["process_stuck", "process_hangs"]);
}

fn branch(bench: &mut Bench) -> ProcessId {
    let turn = bench.message("c", 1).one();
    bench.ask(turn.process, Ask::Branch { description: "think".to_owned() });
    let branch = bench.started().into_iter().find(|job| job.process.kind == ProcessKind::Branch);
    bench.turned(turn.process, 1);
    branch.expect("a branch").process
}

#[test]
fn a_branch_is_ended_when_it_is_idle_and_when_its_time_is_up_whatever_it_does() {
    let cortex = CortexConfig { tick_interval: Duration::from_secs(3600), ..CortexConfig::default() };
    let limits = || LimitsConfig { cortex: cortex.clone(), ..LimitsConfig::default() };
    let mut bench = with_cortex(limits());
    let idle = branch(&mut bench);
    bench.wait(60_000);
    assert_eq!(felt(&mut bench, Some(10)), 1);
    bench.wait(49_999);
    assert_eq!((felt(&mut bench, Some(0)), bench.cancelled()), (0, vec![]), "not yet");
    bench.wait(1);
    assert_eq!(felt(&mut bench, Some(60)), 1);
    assert_eq!(bench.cancelled(), [(idle, StopReason::Timeout)]);
    let mut bench = with_cortex(limits());
    let busy = branch(&mut bench);
    for _ in 0..9 {
        bench.wait(60_000);
        assert_eq!(felt(&mut bench, None), 1, "it asks a model");
        assert_eq!(bench.cancelled(), []);
    }
    bench.wait(60_000);
    assert_eq!(bench.cancelled(), [(busy, StopReason::Timeout)], "nothing runs for ever");
}

#[test]
fn whose_time_is_up_is_not_said_to_hang_before_it_has_had_a_moment_to_end() {
    let time = Duration::from_secs(60);
    let limits = LimitsConfig { branch_timeout: time, branch_wall_clock: time, ..LimitsConfig::default() };
    let mut bench = with_cortex(limits);
    let branch = branch(&mut bench);
    bench.wait(60_000).wait(29_000);
    assert_eq!(bench.cancelled(), [(branch, StopReason::Timeout)]);
    // Before the next errand of the cortex takes them along.
    let noted = |bench: &Bench| {
        let cortex = &bench.hub.agents[&AgentId::new(MAIN)].cortex;
        cortex.noted().filter(|kind| *kind == "process_hangs").count()
    };
    assert_eq!(noted(&bench), 0);
    bench.wait(1_000);
    assert_eq!(noted(&bench), 1, "half a minute later it is");
    bench.exit(branch, How::Finished);
}

fn observation(tool: &str, calls: &[bool], end: DriveEnd) -> Observation {
    let mut hook = crate::hooks::CortexHook::default();
    hook.model_answered(10);
    calls.iter().for_each(|failed| hook.tool_called(tool, *failed));
    hook.end(end)
}

#[test]
fn a_tool_that_fails_three_times_in_a_row_is_noted_once_also_across_runs() {
    let mut bench = warm();
    let worker = worker(&mut bench);
    let tell = |bench: &mut Bench, calls: &[bool]| {
        bench.process(worker, What::Observed(Box::new(observation("shell", calls, DriveEnd::Done))));
    };
    tell(&mut bench, &[true, false, true]);
    tell(&mut bench, &[true]);
    assert_eq!(bench.hub.agents[&AgentId::new(MAIN)].cortex.noted().count(), 0, "two in a row");
    tell(&mut bench, &[true]);
    tell(&mut bench, &[true, true]);
    assert_eq!(bench.hub.agents[&AgentId::new(MAIN)].cortex.noted().collect::<Vec<_>>(), ["tool_failing"]);
    let report = bench.hub.cortex_reports(bench.now).remove(0).observed;
    assert!(report.tools[0].failing && report.tools[0].calls == 7 && report.tools[0].failures == 6);
    assert_eq!(report.tripped, ["shell"]);
    assert_eq!((report.model_calls, report.tokens), (4, 40));
    assert_eq!(report.signals, ["worker done x4, 0 s ago"], "neighbours of one kind are one");
    tell(&mut bench, &[false]);
    let report = bench.hub.cortex_reports(bench.now).remove(0).observed;
    assert!(!report.tools[0].failing && report.tripped.is_empty());
    // It is written by the next pass.
    bench.wait(30_000);
    let noted: Vec<_> = bench
        .started()
        .into_iter()
        .filter_map(|job| match job.work {
            Work::Cortex { notes, .. } => Some(notes.len()),
            _ => None,
        })
        .collect();
    assert_eq!(noted, [1]);
}

#[test]
fn workers_that_fail_in_a_row_are_noted_and_commands_hear_what_does_not_work() {
    let mut bench = warm();
    let worker = worker(&mut bench);
    let tell = |bench: &mut Bench, end| {
        bench.process(worker, What::Observed(Box::new(observation("shell", &[true], end))));
    };
    let troubles = |bench: &mut Bench, inbox| {
        let mut jobs = bench.command("c", inbox).started();
        let position = jobs.iter().position(|job| matches!(job.work, Work::Commands { .. }));
        let job = jobs.remove(position.expect("commands"));
        bench.turned(job.process, inbox);
        let Work::Commands { troubles, .. } = job.work else { panic!("{job:?}") };
        troubles
    };
    // At its limit a worker goes on with a new run; who was stopped did not fail.
    for end in [DriveEnd::Failed, DriveEnd::Limit, DriveEnd::Repeating, DriveEnd::Cancelled] {
        tell(&mut bench, end);
    }
    assert_eq!(troubles(&mut bench, 10).failing, ["shell"]);
    tell(&mut bench, DriveEnd::Failed);
    assert_eq!(
        troubles(&mut bench, 11),
        Troubles { failing: vec!["workers".to_owned(), "shell".to_owned()], resting: vec![] }
    );
    tell(&mut bench, DriveEnd::Failed);
    let noted: Vec<_> = bench.hub.agents[&AgentId::new(MAIN)].cortex.noted().collect();
    assert_eq!(noted, ["tool_failing", "workers_failing"], "once");
    tell(&mut bench, DriveEnd::Done);
    assert_eq!(troubles(&mut bench, 12).failing, ["shell"]);
    // An errand that rests.
    let tend = bench.wait(60_000).started().into_iter().find(|job| matches!(job.work, Work::Cortex { .. }));
    bench.exit(tend.expect("upkeep").process, How::Failed(Kind::Invalid, "broken".to_owned()));
    assert_eq!(troubles(&mut bench, 13).resting, [("upkeep".to_owned(), CORTEX_REST)]);
}

#[test]
fn what_was_seen_is_bounded_whatever_happens() {
    let mut bench = warm();
    let worker = worker(&mut bench);
    for number in 0..2000 {
        let end = if number % 2 == 0 { DriveEnd::Limit } else { DriveEnd::Repeating };
        let seen = observation(&format!("tool{number}"), &[true; 9], end);
        bench.process(worker, What::Observed(Box::new(seen)));
    }
    let report = bench.hub.cortex_reports(bench.now).remove(0).observed;
    assert_eq!((report.ended_by_limit, report.ended_by_repetition), (1000, 1000));
    assert_eq!(report.tools.len(), 128);
    let cortex = &bench.hub.agents[&AgentId::new(MAIN)].cortex;
    assert_eq!((cortex.seen.count(), cortex.noted().count()), (SIGNALS_MAX, 32));
}

#[test]
fn models_that_do_not_answer_are_noted_at_the_third_run_in_a_row() {
    let mut bench = warm();
    let worker = worker(&mut bench);
    let failing = Observation { provider_error: Some(Kind::Transient), ..Observation::default() };
    for run in [failing.clone(), failing.clone(), observation("x", &[], DriveEnd::Done)] {
        bench.process(worker, What::Observed(Box::new(run)));
    }
    for expected in [0, 0, 1, 1] {
        bench.process(worker, What::Observed(Box::new(failing.clone())));
        assert_eq!(bench.hub.agents[&AgentId::new(MAIN)].cortex.noted().count(), expected);
        let tripped = bench.hub.cortex_reports(bench.now).remove(0).observed.tripped;
        assert_eq!(tripped, vec!["models"; expected]);
    }
    bench.process(worker, What::Observed(Box::new(observation("x", &[], DriveEnd::Done))));
    assert!(bench.hub.cortex_reports(bench.now).remove(0).observed.tripped.is_empty());
}

#[test]
fn the_operator_is_answered_one_message_at_a_time_beside_the_errands() {
    let mut bench = warm();
    let send = |bench: &mut Bench| {
        let (answer, answered) = bounded(1);
        let (thread, message) = ("t".to_owned(), "hello".to_owned());
        let agent = AgentId::new(MAIN);
        bench.event(Event::Command(Command::CortexChat { agent, thread, channel: None, message, answer }));
        for action in std::mem::take(&mut bench.actions) {
            match action {
                Action::Answer { to, answer } => to.try_send(answer).expect("room"),
                other => bench.actions.push(other),
            }
        }
        answered.try_recv().expect("an answer")
    };
    let Answer::Started(process) = send(&mut bench) else { panic!("it begins") };
    assert_eq!(send(&mut bench), Answer::Refused(Refusal::Busy(process)));
    bench.actions.clear();
    bench.hub.cortex_changed(&AgentId::new(MAIN), bench.now);
    bench.wait(30_000);
    let (tend, _) = one_errand(&mut bench);
    bench.exit(tend, How::Tended(Vec::new()));
    assert!(matches!(send(&mut bench), Answer::Refused(Refusal::Busy(_))), "the errand was another process");
    bench.exit(process, How::Panicked("it broke".to_owned()));
    assert!(matches!(send(&mut bench), Answer::Started(_)));
}
