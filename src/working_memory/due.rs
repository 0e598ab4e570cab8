//! When a model is worth asking about what happened: a pure function of what is not put together yet, the
//! time, and the config. Where nothing has happened since, the answer is never.

use std::time::Duration;

use super::Days;
use crate::clock::Timestamp;
use crate::config::WorkingMemoryConfig;

/// After `intraday_fallback` so many events are worth a paragraph: fewer are shorter than it.
pub const FALLBACK_EVENTS_MIN: usize = 3;
/// A day with fewer events is shown as it is: its summary would be longer.
pub const DAY_EVENTS_MIN: usize = 5;
/// Calls for one day, whatever happens; what comes afterwards stays as events until the day is over.
pub const PARAGRAPHS_MAX: usize = 24;
/// A day that is over is left alone for a moment, so that a clock which runs a little late finds it over.
const DAY_SETTLES: Duration = Duration::from_secs(60);

/// What is not put together yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pending {
    /// Events of today, as far as that matters.
    pub today: usize,
    /// Those that are in no paragraph, and when the first of them happened.
    pub unread: usize,
    pub oldest: Option<Timestamp>,
    /// Paragraphs of today, and when the last was made.
    pub paragraphs: usize,
    pub last_made: Option<Timestamp>,
    /// The last days that have enough events and no summary.
    pub days: Vec<usize>,
}

/// How long it is until a call is worth while, if nothing more happens; none where it never is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    pub intraday: Option<Duration>,
    pub daily: Option<Duration>,
}

/// No wait is longer than to the end of the day, wherever the clock was meanwhile.
pub fn waits(pending: &Pending, now: Timestamp, days: &Days, config: &WorkingMemoryConfig) -> Waits {
    if !config.enabled {
        return Waits::default();
    }
    let left = days.tomorrow.since(now);
    let over = (pending.today >= DAY_EVENTS_MIN).then(|| left + DAY_SETTLES);
    Waits {
        // What would come after midnight is part of the day's summary.
        intraday: intraday(pending, now, config).filter(|wait| *wait < left),
        daily: if pending.days.is_empty() { over } else { Some(Duration::ZERO) },
    }
}

fn intraday(pending: &Pending, now: Timestamp, config: &WorkingMemoryConfig) -> Option<Duration> {
    if pending.paragraphs >= PARAGRAPHS_MAX {
        return None;
    }
    if pending.unread >= config.intraday_batch {
        return Some(Duration::ZERO);
    }
    if pending.unread < FALLBACK_EVENTS_MIN.min(config.intraday_batch) {
        return None;
    }
    // Times from before the clock was set back are no reason to wait longer than from now on.
    let since = pending.oldest.max(pending.last_made)?.min(now);
    Some(config.intraday_fallback.saturating_sub(now.since(since)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Zone;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn unread(unread: usize, oldest: &str) -> Pending {
        Pending { today: unread, unread, oldest: Some(at(oldest)), ..Pending::default() }
    }

    fn of(pending: &Pending, now: &str, zone: &str) -> Waits {
        let zone: Zone = zone.parse().unwrap();
        let config = WorkingMemoryConfig::default();
        waits(pending, at(now), &Days::of(at(now), &zone), &config)
    }

    /// Seconds until the paragraph, and until the summary.
    fn seconds(waits: Waits) -> (Option<u64>, Option<u64>) {
        (waits.intraday.map(|wait| wait.as_secs()), waits.daily.map(|wait| wait.as_secs()))
    }

    #[test]
    fn fifteen_events_are_due_at_once_and_three_after_four_hours_of_the_oldest_of_them() {
        let now = "2026-11-21T10:00:00Z";
        let cases = [
            // Nothing, and too little.
            (Pending::default(), (None, None)),
            (unread(2, "2026-11-21T01:00:00Z"), (None, None)),
            (unread(3, "2026-11-21T09:00:00Z"), (Some(3 * 3600), None)),
            (unread(3, "2026-11-21T06:00:00Z"), (Some(0), None)),
            (unread(3, "2026-11-21T01:00:00Z"), (Some(0), None)),
            (unread(14, "2026-11-21T10:00:00Z"), (Some(4 * 3600), Some(14 * 3600 + 60))),
            (unread(15, "2026-11-21T10:00:00Z"), (Some(0), Some(14 * 3600 + 60))),
        ];
        for (pending, expected) in cases {
            assert_eq!(seconds(of(&pending, now, "UTC")), expected, "{pending:?}");
        }
    }

    #[test]
    fn a_paragraph_that_was_just_made_puts_the_next_off_unless_enough_happens() {
        let mut pending =
            Pending { last_made: Some(at("2026-11-21T09:30:00Z")), ..unread(3, "2026-11-21T01:00:00Z") };
        assert_eq!(seconds(of(&pending, "2026-11-21T10:00:00Z", "UTC")).0, Some(12_600));
        pending.unread = 15;
        assert_eq!(seconds(of(&pending, "2026-11-21T10:00:00Z", "UTC")).0, Some(0));
        pending.paragraphs = PARAGRAPHS_MAX;
        assert_eq!(seconds(of(&pending, "2026-11-21T10:00:00Z", "UTC")).0, None, "the day has had enough");
    }

    #[test]
    fn what_would_come_after_midnight_is_left_to_the_summary_of_the_day() {
        let pending = unread(9, "2026-11-21T20:30:00Z");
        assert_eq!(seconds(of(&pending, "2026-11-21T20:30:00Z", "UTC")), (None, Some(12_600 + 60)));
        // The same moment is earlier in the day elsewhere.
        assert_eq!(
            seconds(of(&pending, "2026-11-21T20:30:00Z", "America/Los_Angeles")),
            (Some(14_400), Some(41_400 + 60))
        );
    }

    #[test]
    fn days_of_23_and_25_hours_end_when_they_end() {
        let hours = |day: &str| {
            let pending = unread(9, day);
            (of(&pending, day, "Europe/Berlin").daily.unwrap() - DAY_SETTLES).as_secs() / 3600
        };
        assert_eq!(hours("2026-03-29T00:00:00+01:00"), 23);
        assert_eq!(hours("2026-10-25T00:00:00+02:00"), 25);
        assert_eq!(hours("2026-11-21T00:00:00+01:00"), 24);
    }

    #[test]
    fn a_past_day_without_a_summary_is_due_at_once() {
        let pending = Pending { days: vec![3], ..Pending::default() };
        assert_eq!(of(&pending, "2026-11-21T10:00:00Z", "UTC").daily, Some(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nothing_wait_longer_than_the_fallback() {
        let pending =
            Pending { last_made: Some(at("2026-11-21T19:30:00Z")), ..unread(3, "2026-11-21T19:40:00Z") };
        let waits = of(&pending, "2026-11-21T02:00:00Z", "UTC");
        assert_eq!(waits.intraday, Some(4 * HOUR));
        // In the year of a board without a battery nothing of today has happened.
        assert_eq!(of(&Pending::default(), "1970-01-01T00:00:10Z", "Europe/Berlin"), Waits::default());
    }

    #[test]
    fn switched_off_nothing_is_due() {
        let config = WorkingMemoryConfig { enabled: false, ..WorkingMemoryConfig::default() };
        let now = at("2026-11-21T10:00:00Z");
        let pending = Pending { days: vec![1], ..unread(99, "2026-11-21T01:00:00Z") };
        assert_eq!(waits(&pending, now, &Days::of(now, &Zone::utc()), &config), Waits::default());
    }

    #[test]
    fn a_small_threshold_is_also_enough_after_the_fallback() {
        let config = WorkingMemoryConfig { intraday_batch: 2, ..WorkingMemoryConfig::default() };
        let now = at("2026-11-21T10:00:00Z");
        let waits = |count| {
            waits(&unread(count, "2026-11-21T09:59:00Z"), now, &Days::of(now, &Zone::utc()), &config).intraday
        };
        assert_eq!((waits(1), waits(2)), (None, Some(Duration::ZERO)));
    }
}
