//! Jobs that run at their time: looks, runs and their ends.

use super::*;
use crate::agent::{Look, Run, RunEnd};

const JOB: &str = "cron:job";

fn run(execution: i64, inbox: i64) -> Run {
    let place = Place { instance: InstanceId::new("cron"), ..place(JOB, false) };
    Run { execution, place, inbox: InboxId(inbox), timeout: Duration::from_secs(100) }
}

impl Bench {
    fn looked(&mut self, runs: Vec<Run>, next: Option<u64>) -> &mut Self {
        let look = Look { runs, next: next.map(Duration::from_millis) };
        self.event(Event::Looked { agent: AgentId::new(MAIN), look: Some(look) })
    }

    fn looks(&mut self) -> usize {
        let before = self.actions.len();
        self.actions.retain(|action| !matches!(action, Action::Look { .. }));
        before - self.actions.len()
    }

    fn rings(&mut self) -> Vec<String> {
        let ring = |action| match action {
            Action::Ring { conversation, .. } => Some(conversation.to_string()),
            _ => None,
        };
        std::mem::take(&mut self.actions).into_iter().filter_map(ring).collect()
    }

    fn silent(&mut self, process: ProcessId, covered: i64) -> &mut Self {
        self.exit(process, How::Turned { covered: Some(InboxId(covered)), more: false, outbox: vec![] })
    }
}

fn end_of(job: &Job) -> (i64, RunEnd) {
    match &job.work {
        Work::RunEnd { execution, end } => (*execution, end.clone()),
        other => panic!("no end: {other:?}"),
    }
}

fn delivered() -> How {
    How::Delivered(Some((InstanceId::new("webhook"), ConversationId::new("target"))))
}

#[test]
fn looks_come_at_the_start_when_the_clock_is_set_and_when_a_slot_comes_one_at_a_time() {
    let mut bench = bench(LimitsConfig::default());
    assert_eq!(bench.hub.next_deadline(), None);
    assert_eq!(bench.event(Event::ClockChanged).looks(), 1);
    // Changes during a look are looked at afterwards, together.
    assert_eq!(bench.event(Event::ClockChanged).event(Event::ClockChanged).looks(), 0);
    assert_eq!(bench.looked(vec![], Some(5_000)).looks(), 1);
    bench.looked(vec![], Some(5_000));
    assert_eq!(bench.hub.next_deadline(), Some(bench.now + Duration::from_secs(5)));
    assert_eq!(bench.wait(4_999).looks(), 0);
    assert_eq!(bench.wait(1).looks(), 1);
    // Nothing waits: no timer.
    bench.looked(vec![], None);
    assert_eq!(bench.hub.next_deadline(), None);
    // A tool has changed the jobs.
    let turn = bench.message("c", 1).one();
    assert_eq!(bench.process(turn.process, What::Scheduled).looks(), 1);
    // A look that fails comes again, later each time.
    for wait in [5, 10, 20] {
        bench.event(Event::Looked { agent: AgentId::new(MAIN), look: None });
        assert_eq!(bench.wait(wait * 1000 - 1).looks(), 0);
        assert_eq!(bench.wait(1).looks(), 1);
    }
}

#[test]
fn a_run_is_one_turn_and_its_end() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    assert_eq!(turn_of(&turn).execution, Some(7));
    let end = bench.silent(turn.process, 1).one();
    assert_eq!(end_of(&end), (7, RunEnd::Done));
    assert_eq!(bench.exit(end.process, delivered()).rings(), ["target"]);
    assert!(bench.hub.conversations.is_empty() && bench.hub.next_deadline().is_none());
    assert_eq!(bench.hub.agents[&AgentId::new(MAIN)].turns, 0);
}

#[test]
fn a_run_goes_on_while_its_branches_and_workers_do() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    bench.ask(
        turn.process,
        Ask::SpawnWorker { task: "count".to_owned(), interactive: false, task_type: None },
    );
    let worker = bench.one();
    bench.silent(turn.process, 1);
    assert!(bench.started().is_empty(), "the worker is not done");
    let second = bench.exit(worker.process, How::Finished).wait(500).one();
    assert_eq!(turn_of(&second).execution, Some(7));
    // More than a person's message may start, but not for ever.
    let mut turn = second;
    for _ in 0..10 {
        bench.ask(turn.process, Ask::Branch { description: "think".to_owned() });
        let branch = bench.one();
        bench.silent(turn.process, 1);
        turn = bench.exit(branch.process, How::Finished).wait(500).one();
        assert!(!turn_of(&turn).absorb);
    }
    let end = bench.silent(turn.process, 1).one();
    assert_eq!(end_of(&end), (7, RunEnd::Done));
}

#[test]
fn a_run_that_takes_too_long_is_stopped_with_everything_in_it() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    bench.ask(
        turn.process,
        Ask::SpawnWorker { task: "count".to_owned(), interactive: false, task_type: None },
    );
    let worker = bench.one();
    bench.wait(99_999);
    assert!(bench.cancelled().is_empty());
    let mut stopped: Vec<_> = bench.wait(1).cancelled().into_iter().map(|(process, _)| process).collect();
    stopped.sort();
    assert_eq!(stopped, [turn.process, worker.process]);
    bench.exit(turn.process, How::Cancelled);
    assert!(bench.started().is_empty(), "the worker is not stopped yet");
    let end = bench.exit(worker.process, How::Finished).one();
    assert_eq!(end_of(&end), (7, RunEnd::TimedOut));
}

#[test]
fn a_turn_that_waits_for_its_place_does_not_begin_behind_the_end() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() });
    let person = bench.message("c", 1).one();
    bench.looked(vec![run(7, 1)], None).wait(100_000);
    assert!(bench.started().is_empty());
    let end = bench.turned(person.process, 1).one();
    assert_eq!(end_of(&end), (7, RunEnd::TimedOut));
    bench.exit(end.process, How::Delivered(None));
    assert_eq!(bench.hub.agents[&AgentId::new(MAIN)].turns, 0);
    let next = bench.message("c", 2).one();
    bench.turned(next.process, 2);
}

#[test]
fn a_failed_turn_ends_the_run_and_a_full_disk_is_tried_again() {
    let mut bench = bench(LimitsConfig::default());
    let first = bench.looked(vec![run(7, 1)], None).one();
    bench.exit(first.process, How::Failed(Kind::Full, "no space".to_owned()));
    let second = bench.wait(1_000).one();
    bench.exit(second.process, How::Failed(Kind::Invalid, "wrong".to_owned()));
    let end = bench.one();
    assert_eq!(end_of(&end), (7, RunEnd::Failed(Kind::Invalid, "wrong".to_owned())));
    // The end itself waits for the disk.
    bench.exit(end.process, How::Failed(Kind::Full, "no space".to_owned()));
    assert!(bench.started().is_empty());
    let again = bench.wait(60_000).one();
    assert_eq!(end_of(&again), end_of(&end));
    bench.exit(again.process, How::Delivered(None));
    assert!(bench.hub.conversations.is_empty() && bench.hub.next_deadline().is_none());
    let turn = bench.looked(vec![run(8, 2)], None).one();
    let end = bench.exit(turn.process, How::Panicked("boom".to_owned())).one();
    assert_eq!(end_of(&end), (8, RunEnd::Failed(Kind::Bug, "boom".to_owned())));
}

#[test]
fn the_next_run_waits_until_we_heard_of_the_end_of_the_last() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    let end = bench.silent(turn.process, 1).one();
    bench.looked(vec![run(8, 2)], None);
    assert!(bench.started().is_empty());
    let next = bench.exit(end.process, How::Delivered(None)).one();
    assert_eq!(turn_of(&next).execution, Some(8));
}

#[test]
fn a_stop_lets_a_finished_run_write_its_end_and_leaves_the_others() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    bench.event(Event::Stop);
    let end = bench.silent(turn.process, 1).one();
    assert_eq!(end_of(&end), (7, RunEnd::Done));
    bench.exit(end.process, How::Delivered(None));
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Exit)));
    let mut bench = super::bench(LimitsConfig::default());
    let turn = bench.looked(vec![run(7, 1)], None).one();
    bench.event(Event::Stop).wait(3_000);
    bench.exit(turn.process, How::Cancelled);
    assert!(bench.started().is_empty(), "what was cut off is for the next start");
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Exit)));
    assert_eq!(bench.event(Event::ClockChanged).looks(), 0);
}
