//! Turns that no model could be asked about.

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn deferred(outbox: Vec<InstanceId>) -> How {
    How::Deferred { wait: WAIT, outbox }
}

#[test]
fn a_turn_without_a_model_is_tried_again_after_its_wait_and_not_for_a_new_message() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("a", 1).one();
    bench.exit(turn.process, deferred(vec![InstanceId::new("webhook")]));
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Ring { .. })), "the notice goes out");
    assert_eq!(bench.message("a", 2).wait(29_999).started().len(), 0);
    let turn = bench.wait(1).one();
    bench.turned(turn.process, 2);
    assert!(bench.message("a", 3).one().process != turn.process, "what is well again waits for nothing");
}

#[test]
fn a_new_config_lets_what_waits_for_a_model_try_at_once() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("a", 1).one();
    bench.exit(turn.process, deferred(Vec::new()));
    assert_eq!(bench.started().len(), 0);
    let off = CortexConfig { enabled: false, ..CortexConfig::default() };
    let limits = LimitsConfig { cortex: off, ..LimitsConfig::default() };
    bench.event(Event::Reloaded([(AgentId::new(MAIN), limits)].into()));
    bench.one();
}

#[test]
fn results_that_nobody_has_seen_use_up_no_turn() {
    let mut bench = bench(LimitsConfig::default());
    let place = place("a", true);
    let agent = AgentId::new(MAIN);
    bench.event(Event::Unfinished { agent, place, lane: Lane::Talk, newest: None, results: true });
    for _ in 0..=LimitsConfig::default().max_retriggers {
        let turn = bench.one();
        assert!(matches!(&turn.work, Work::Turn(turn) if !turn.absorb), "{turn:?}");
        bench.exit(turn.process, deferred(Vec::new())).wait(30_000);
    }
}

#[test]
fn results_whose_turn_could_not_be_stored_are_told_however_often_that_fails() {
    let mut bench = bench(LimitsConfig::default());
    let place = place("a", true);
    let agent = AgentId::new(MAIN);
    bench.event(Event::Unfinished { agent, place, lane: Lane::Talk, newest: None, results: true });
    for _ in 0..LimitsConfig::default().max_retriggers + 3 {
        let turn = bench.one();
        assert!(matches!(&turn.work, Work::Turn(turn) if !turn.absorb), "{turn:?}");
        let full = How::Failed(Kind::Full, "no room".to_owned());
        bench.exit(turn.process, full).wait(60_000);
    }
}
