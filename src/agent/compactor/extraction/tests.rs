//! When memories are to be taken from a conversation.

use super::*;

#[test]
fn each_threshold_is_enough_by_itself_and_zero_switches_it_off() {
    const NOW: Timestamp = Timestamp(10_000_000);
    let config = |messages, seconds, events| MemoryPersistenceConfig {
        enabled: true,
        messages,
        time: Duration::from_secs(seconds),
        events,
    };
    let (now, never) = (Some(Duration::ZERO), None);
    let later = |seconds| Some(Duration::from_secs(seconds));
    // Thresholds, then messages, seconds since the first, and events.
    let cases = [
        ((20, 900, 5), (1, 0, 0), later(900)),
        ((20, 900, 5), (19, 300, 4), later(600)),
        ((20, 900, 5), (20, 0, 0), now),
        ((20, 900, 5), (1, 900, 0), now),
        ((20, 900, 5), (1, 5_000, 0), now),
        ((20, 900, 5), (1, 0, 5), now),
        ((0, 900, 5), (1_000, 0, 0), later(900)),
        ((20, 0, 5), (19, 5_000, 4), never),
        ((20, 900, 0), (1, 1, 1_000), later(899)),
        ((0, 0, 0), (1_000, 5_000, 1_000), never),
    ];
    for ((messages, seconds, events), (said, age, happened), expected) in cases {
        let first_at = NOW.minus(Duration::from_secs(age));
        let said = Unremembered { messages: said, first_at, since: first_at };
        let found = due(&config(messages, seconds, events), &said, happened, NOW);
        assert_eq!(found, expected, "{messages} {seconds} {events}: {said:?} {happened}");
    }
}
