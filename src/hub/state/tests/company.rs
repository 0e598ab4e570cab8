//! Messages that wait for each other in company, and those that come while a turn runs.

use super::*;
use crate::config::CoalescingConfig;

impl Bench {
    fn in_company(&mut self, conversation: &str, inbox: i64, addressed: bool) -> &mut Self {
        let (agent, inbox) = (AgentId::new(MAIN), InboxId(inbox));
        self.event(Event::Arrived {
            agent,
            place: place(conversation, false),
            lane: Lane::Talk,
            inbox,
            addressed,
        })
    }

    /// Turns that were rung since the last look.
    fn rung(&mut self) -> Vec<ProcessId> {
        let (rings, rest) = std::mem::take(&mut self.actions)
            .into_iter()
            .partition(|action| matches!(action, Action::RingProcess { .. }));
        self.actions = rest;
        let process = |action| match action {
            Action::RingProcess { process, .. } => process,
            other => panic!("no ring: {other:?}"),
        };
        Vec::into_iter(rings).map(process).collect()
    }
}

fn coalescing(change: impl FnOnce(&mut CoalescingConfig)) -> LimitsConfig {
    let mut limits = LimitsConfig::default();
    change(&mut limits.coalescing);
    limits
}

#[test]
fn what_comes_together_in_company_is_one_turn() {
    let mut bench = bench(LimitsConfig::default());
    bench.in_company("c", 1, false).wait(1_499).in_company("c", 2, false);
    // Two wait: a third one does not put it off any more.
    bench.wait(1_400).in_company("c", 3, false);
    assert!(bench.wait(99).started().is_empty());
    let turn = bench.wait(1).one();
    assert!(!turn_of(&turn).single);
    bench.turned(turn.process, 3);
    assert!(bench.wait(10_000).started().is_empty() && bench.hub.conversations.is_empty());
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
    // Alone it waits only once.
    assert!(bench.in_company("c", 4, false).wait(1_499).started().is_empty());
    bench.wait(1).one();
}

#[test]
fn nobody_waits_longer_than_the_longest_wait() {
    let mut bench = bench(coalescing(|config| config.min_messages = 32));
    for number in 1..=5 {
        bench.in_company("c", number, false).wait(999);
    }
    assert!(bench.wait(4).started().is_empty());
    bench.wait(1).one();
}

#[test]
fn who_addresses_the_agent_waits_one_debounce() {
    let mut bench = bench(coalescing(|config| config.min_messages = 32));
    bench.in_company("c", 1, false).wait(1_000).in_company("c", 2, true);
    bench.wait(700).in_company("c", 3, false).wait(700).in_company("c", 4, true);
    assert!(bench.wait(99).started().is_empty());
    bench.wait(1).one();
}

#[test]
fn nothing_waits_that_need_not() {
    let mut bench = bench(LimitsConfig::default());
    bench.message("direct", 1).one();
    bench.in_company("c", 2, false);
    let place = place("c", false);
    let (agent, inbox) = (AgentId::new(MAIN), InboxId(3));
    bench.event(Event::Arrived { agent, place, lane: Lane::Commands, inbox, addressed: true });
    let command = bench.one();
    assert!(matches!(command.work, Work::Commands { .. }));
    bench.turned(command.process, 3);
    // The config is read again: what waits keeps its time, what comes does not wait.
    let off = coalescing(|config| config.enabled = false);
    bench.event(Event::Reloaded([(AgentId::new(MAIN), off)].into()));
    assert_eq!(bench.in_company("d", 4, false).one().place.conversation.as_str(), "d");
    let all = coalescing(|config| config.multi_user_only = false);
    bench.event(Event::Reloaded([(AgentId::new(MAIN), all)].into()));
    assert!(bench.message("e", 5).started().is_empty(), "who writes directly waits, too");
    assert_eq!(bench.wait(1_500).started().len(), 2);
    // What a start finds has waited long enough.
    let found = super::place("f", false);
    let (agent, newest) = (AgentId::new(MAIN), Some(InboxId(6)));
    bench.event(Event::Unfinished { agent, place: found, lane: Lane::Talk, newest, results: false });
    bench.one();
}

#[test]
fn what_a_turn_has_left_does_not_wait_for_what_came_later() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.in_company("c", 1, false).in_company("c", 2, false).wait(1_500).one();
    bench.in_company("c", 3, false).rung();
    let left = How::Turned { covered: Some(InboxId(1)), more: true, outbox: vec![] };
    let rest = bench.exit(turn.process, left).one();
    // What came while all was taken waits for others as usual.
    bench.in_company("c", 4, false).rung();
    let left = How::Turned { covered: Some(InboxId(3)), more: true, outbox: vec![] };
    assert!(bench.exit(rest.process, left).wait(1_499).started().is_empty());
    bench.wait(1).one();
}

#[test]
fn a_result_ends_the_wait_and_shares_the_turn() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.in_company("c", 1, true).wait(1_500).one();
    bench.ask(turn.process, Ask::Branch { description: "think".to_owned() }).recv().expect("answer");
    let branch = bench.one();
    bench.turned(turn.process, 1).in_company("c", 2, false);
    assert!(bench.wait(100).started().is_empty());
    let both = bench.exit(branch.process, How::Finished).one();
    bench.turned(both.process, 2);
    assert!(bench.wait(10_000).started().is_empty(), "the result was in that turn");
}

#[test]
fn what_comes_while_a_turn_runs_rings_it() {
    for direct in [true, false] {
        let mut bench = bench(LimitsConfig::default());
        let arrive = |bench: &mut Bench, inbox| {
            if direct {
                bench.message("c", inbox)
            } else {
                bench.in_company("c", inbox, false)
            };
        };
        arrive(&mut bench, 1);
        let turn = bench.wait(1_500).one();
        arrive(&mut bench, 2);
        assert_eq!(bench.rung(), [turn.process], "at once");
        arrive(&mut bench, 2);
        assert!(bench.rung().is_empty(), "it has been told");
        arrive(&mut bench, 3);
        assert_eq!(bench.rung(), [turn.process]);
        assert!(bench.wait(9_000).started().is_empty(), "no second turn beside it");
        // It has heard both: nothing is left.
        bench.turned(turn.process, 3);
        assert!(bench.wait(10_000).started().is_empty() && bench.hub.conversations.is_empty());
        // It had ended already: the message has a turn of its own.
        arrive(&mut bench, 4);
        let turn = bench.wait(1_500).one();
        arrive(&mut bench, 5);
        bench.turned(turn.process, 4);
        let next = bench.wait(1_500).one();
        assert_eq!(bench.rung(), [turn.process]);
        // A turn that fails leaves all that it has heard.
        arrive(&mut bench, 6);
        bench.exit(next.process, How::Failed(Kind::Transient, "gone".to_owned()));
        let again = bench.wait(1_500).one();
        bench.turned(again.process, 6);
        assert!(bench.wait(10_000).started().is_empty());
    }
}

#[test]
fn only_a_turn_with_people_is_rung() {
    let mut bench = bench(LimitsConfig::default());
    let command = bench.command("c", 1).one();
    bench.command("c", 2);
    assert!(bench.rung().is_empty(), "commands wait for each other");
    bench.turned(command.process, 2);
    let turn = bench.message("d", 3).one();
    bench.exit(turn.process, How::Panicked("boom".to_owned()));
    let apology = bench.one();
    bench.message("d", 4);
    assert!(bench.rung().is_empty(), "a plain sentence hears nothing");
    bench.turned(apology.process, 3);
}

#[test]
fn results_that_one_turn_could_not_take_start_the_next() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    let more = |covered| How::Turned { covered, more: true, outbox: vec![] };
    let next = bench.exit(turn.process, more(Some(InboxId(1)))).one();
    let last = bench.exit(next.process, more(None)).one();
    bench.exit(last.process, How::Turned { covered: None, more: false, outbox: vec![] });
    assert!(bench.wait(10_000).started().is_empty() && bench.hub.conversations.is_empty());
}

/// Whatever comes when: the first of a batch waits no longer than it may, and each message has a turn.
#[test]
fn no_order_of_messages_makes_anybody_wait_too_long() {
    let mut state = 42_u64;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    for round in 0..300 {
        let (debounce, least) = (100 + roll(2_000), 1 + roll(5));
        let longest = debounce + roll(4_000);
        let mut bench = bench(coalescing(|config| {
            config.debounce = Duration::from_millis(debounce);
            config.max_wait = Duration::from_millis(longest);
            config.min_messages = usize::try_from(least).expect("small");
        }));
        let mut waiting: Option<Duration> = None;
        for inbox in 1..=20 {
            bench.in_company("c", inbox, roll(4) == 0);
            waiting = waiting.or(Some(bench.now));
            // As far as the hub says, but not into the next message.
            let next = bench.now + Duration::from_millis(roll(3_000));
            while let Some(at) = bench.hub.next_deadline().filter(|at| *at <= next) {
                bench.now = at;
                bench.event(Event::Timer);
                for turn in bench.started() {
                    let waited = at.saturating_sub(waiting.take().expect("a turn for nothing"));
                    assert!(waited <= Duration::from_millis(longest), "round {round}: {waited:?}");
                    bench.turned(turn.process, inbox);
                }
            }
            bench.now = next;
        }
        bench.wait(longest);
        let left = bench.started();
        assert_eq!(left.len(), usize::from(waiting.is_some()), "round {round}");
    }
}
