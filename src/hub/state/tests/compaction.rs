//! Compactors beside the turns: at most one of each kind in a conversation, few in an agent.

use super::*;

const COMPACTED: How = How::Compacted { again: false, unread: false };

impl Bench {
    /// A turn that ends with something to do about its window.
    fn pressed(&mut self, conversation: &str, inbox: i64, window: bool, unread: bool) -> &mut Self {
        let turn = self.message(conversation, inbox).one();
        self.process(turn.process, What::Pressed { window, unread, remember: None });
        self.turned(turn.process, inbox)
    }

    fn compactors(&mut self) -> Vec<(ProcessId, Work)> {
        let jobs = self.started().into_iter();
        jobs.filter(|job| job.process.kind == ProcessKind::Compactor)
            .map(|job| (job.process, job.work))
            .collect()
    }

    fn compactor(&mut self) -> (ProcessId, Work) {
        let mut compactors = self.compactors();
        assert_eq!(compactors.len(), 1, "{compactors:?}");
        compactors.remove(0)
    }
}

fn failed() -> How {
    How::Failed(Kind::Transient, "away".to_owned())
}

#[test]
fn a_compactor_runs_beside_the_turns_and_nobody_waits_for_it() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() });
    bench.pressed("c", 1, true, false);
    let (compactor, work) = bench.compactor();
    assert!(matches!(work, Work::Compaction { tries: 0 }), "{work:?}");
    assert!(!bench.hub.report(bench.now).busy.contains(&"c".to_owned()), "nobody waits for it");
    // Another turn begins, sees nothing of it, and asks in vain for a second one.
    let turn = bench.message("c", 2).one();
    assert!(turn_of(&turn).running.is_empty());
    let answer = bench.ask(turn.process, Ask::Cancel { process: compactor, reason: String::new() });
    assert!(matches!(answer.try_recv(), Ok(Answer::Refused(Refusal::Unknown(_)))));
    bench.process(turn.process, What::Pressed { window: true, unread: false, remember: None });
    bench.turned(turn.process, 2);
    assert!(bench.compactors().is_empty(), "one at a time");
    // What was asked for meanwhile is done when the first has ended; its end starts no turn.
    bench.exit(compactor, COMPACTED);
    let (second, _) = bench.compactor();
    bench.exit(second, COMPACTED);
    assert!(bench.started().is_empty());
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
}

#[test]
fn memories_are_taken_by_one_process_beside_the_next_summary() {
    let mut bench = bench(LimitsConfig::default());
    bench.pressed("c", 1, true, false);
    let (summary, _) = bench.compactor();
    bench.exit(summary, How::Compacted { again: true, unread: true });
    let both = bench.compactors();
    assert!(
        matches!(both[0].1, Work::Compaction { .. }) && matches!(both[1].1, Work::Extraction),
        "{both:?}"
    );
    bench.exit(both[0].0, How::Compacted { again: false, unread: true });
    assert!(bench.compactors().is_empty(), "one at a time takes memories");
    bench.exit(both[1].0, How::Compacted { again: false, unread: true });
    let (memories, work) = bench.compactor();
    assert!(matches!(work, Work::Extraction));
    bench.exit(memories, COMPACTED);
    assert_eq!(bench.hub.next_deadline(), None);
}

#[test]
fn a_failed_summary_is_tried_again_a_few_times_and_then_rests() {
    let mut bench = bench(LimitsConfig::default());
    bench.pressed("c", 1, true, false);
    for (tries, wait) in [(0, 30_000), (1, 60_000)] {
        let (compactor, work) = bench.compactor();
        assert!(matches!(work, Work::Compaction { tries: now } if now == tries), "{work:?}");
        bench.exit(compactor, failed());
        bench.wait(wait - 1_000);
        // A turn is no way around the wait.
        bench.pressed("c", i64::from(tries) + 2, true, false);
        assert!(bench.compactors().is_empty());
        bench.wait(1_000);
    }
    let (compactor, _) = bench.compactor();
    bench.exit(compactor, failed());
    bench.wait(u64::try_from(COMPACTION_REST.as_millis()).expect("small") - 1).pressed("c", 9, true, false);
    assert!(bench.compactors().is_empty(), "it rests");
    bench.wait(1);
    assert_eq!(bench.hub.next_deadline(), None, "and nothing is tried without a message");
    bench.pressed("c", 10, true, false);
    assert!(matches!(bench.compactor().1, Work::Compaction { tries: 0 }));
}

#[test]
fn what_nobody_mends_is_not_tried_again() {
    let mut bench = bench(LimitsConfig::default());
    bench.pressed("c", 1, true, false);
    let (compactor, _) = bench.compactor();
    bench.exit(compactor, How::Failed(Kind::Auth, "key".to_owned()));
    bench.wait(300_000);
    assert!(bench.compactors().is_empty());
}

#[test]
fn compactors_of_an_agent_are_few_and_the_others_wait() {
    let mut bench = bench(LimitsConfig::default());
    let mut running = Vec::new();
    for number in 0..4_i64 {
        bench.pressed(&format!("c{number}"), number + 1, true, false);
        running.extend(bench.compactors());
    }
    assert_eq!(running.len(), MAX_COMPACTORS);
    bench.exit(running[0].0, COMPACTED);
    assert_eq!(bench.compactors().len(), 1);
}

#[test]
fn a_compactor_that_hangs_is_stopped_and_one_does_not_hold_a_stop() {
    let mut bench = bench(LimitsConfig::default());
    bench.pressed("c", 1, true, false);
    let (hanging, _) = bench.compactor();
    bench.wait(u64::try_from(COMPACTION_TIMEOUT.as_millis()).expect("small") + 1);
    assert_eq!(bench.cancelled(), [(hanging, StopReason::Timeout)]);
    bench.exit(hanging, How::Cancelled).wait(30_000);
    let (second, work) = bench.compactor();
    assert!(matches!(work, Work::Compaction { tries: 1 }), "a timeout is a failure");
    bench.event(Event::Stop);
    assert_eq!(bench.cancelled(), [(second, StopReason::Shutdown)], "at once");
    bench.exit(second, How::Cancelled);
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Exit)));
}
