//! What agents have for each other is carried by one thread at a time, and again after a failure.

use super::*;

fn carries(bench: &mut Bench) -> usize {
    std::mem::take(&mut bench.actions).iter().filter(|action| matches!(action, Action::Carry { .. })).count()
}

fn carried(bench: &mut Bench, more: Option<bool>) -> usize {
    bench.event(Event::Carried { agent: AgentId::new(MAIN), more });
    carries(bench)
}

#[test]
fn one_carries_at_a_time_and_what_comes_meanwhile_is_carried_afterwards() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one().process;
    bench.process(turn, What::Delegated);
    assert_eq!(carries(&mut bench), 1);
    bench.news(TaskNews::Answered).event(Event::Post { agent: AgentId::new(MAIN) });
    assert_eq!(carries(&mut bench), 0, "one is at it");
    assert_eq!(carried(&mut bench, Some(false)), 1, "for what came meanwhile");
    assert_eq!(carried(&mut bench, Some(true)), 1, "there was more than one pass takes");
    assert_eq!(carried(&mut bench, Some(false)), 0);
    bench.wait(3_600_000);
    assert_eq!(carries(&mut bench), 0, "nobody looks without a reason");
}

#[test]
fn what_could_not_be_carried_is_tried_again_less_and_less_often() {
    let mut bench = bench(LimitsConfig::default());
    bench.news(TaskNews::Answered);
    assert_eq!(carries(&mut bench), 1);
    for wait in [2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        assert_eq!(carried(&mut bench, None), 0);
        bench.wait(wait * 1000 - 1);
        assert_eq!(carries(&mut bench), 0, "too early: {wait}");
        bench.wait(1);
        assert_eq!(carries(&mut bench), 1, "{wait}");
    }
    // News does not wait for the next try.
    carried(&mut bench, None);
    bench.news(TaskNews::Answered);
    assert_eq!(carries(&mut bench), 1);
    carried(&mut bench, Some(false));
    bench.event(Event::Stop).news(TaskNews::Answered);
    assert_eq!(carries(&mut bench), 0, "a stop leaves it to the next start");
}
