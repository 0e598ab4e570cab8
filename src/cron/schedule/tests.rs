//! The scheduler against a reference that looks at every minute, over years, zones and seeds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::MissedSlots as Missed;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// 2020-01-01T00:00:00Z.
const START: i64 = 1_577_836_800_000;
const YEARS: i64 = 12;

/// Rules and not names, so that no zone data is needed: New York, Sydney, Lord Howe (half an hour), Dublin
/// (winter is the exception), Havana-like midnight changes, India, UTC.
const ZONES: [&str; 7] = [
    "EST5EDT,M3.2.0,M11.1.0",
    "AEST-10AEDT,M10.1.0,M4.1.0/3",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "IST-1GMT0,M10.5.0,M3.5.0/1",
    "CST5CDT,M3.2.0/0,M11.1.0/1",
    "IST-5:30",
    "UTC0",
];

struct Dice(u64);

impl Dice {
    fn of(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll(most - least + 1)
    }

    fn zone(&mut self) -> TimeZone {
        let name = ZONES[usize::try_from(self.roll(ZONES.len() as u64)).unwrap()];
        TimeZone::posix(name).expect(name)
    }
}

/// A field as a plain set, with one of its ways to be written.
fn field(dice: &mut Dice, least: u64, most: u64) -> (String, BTreeSet<u64>) {
    match dice.roll(6) {
        0..=2 => ("*".to_owned(), (least..=most).collect()),
        3 => {
            let values: BTreeSet<u64> = (0..dice.between(1, 3)).map(|_| dice.between(least, most)).collect();
            let written = values.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
            (written, values)
        }
        4 => {
            let first = dice.between(least, most);
            let last = dice.between(first, most);
            (format!("{first}-{last}"), (first..=last).collect())
        }
        _ => {
            let step = dice.between(1, (most - least).max(2));
            let values = (least..=most).filter(|value| (value - least).is_multiple_of(step)).collect();
            (format!("*/{step}"), values)
        }
    }
}

/// What an expression means, without any code of the parser.
struct Reference {
    text: String,
    sets: [BTreeSet<u64>; 5],
    /// One of the day fields begins with `*`.
    stars: bool,
    active: ActiveHours,
}

impl Reference {
    fn roll(dice: &mut Dice) -> Self {
        let fields = [
            field(dice, 0, 59),
            field(dice, 0, 23),
            field(dice, 1, 31),
            field(dice, 1, 12),
            field(dice, 0, 6),
        ];
        let text = fields.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" ");
        let hour = |dice: &mut Dice| u8::try_from(dice.roll(24)).unwrap();
        let active = match dice.roll(3) {
            0 => ActiveHours { start: hour(dice), end: hour(dice) },
            _ => ActiveHours::ALWAYS,
        };
        let stars = [2, 4].into_iter().any(|index| fields[index].0.starts_with('*'));
        Self { text, stars, sets: fields.map(|(_, set)| set), active }
    }

    fn timing(&self) -> Timing {
        let rhythm = Rhythm::Expression(Expression::parse(&self.text).expect(&self.text));
        Timing { rhythm, active: self.active, anchor: Timestamp(START), once: false }
    }

    /// Field by field on what the wall clock shows.
    fn wants(&self, shown: DateTime) -> bool {
        let has = |set: usize, number: i8| self.sets[set].contains(&u64::try_from(number).unwrap());
        let (day, weekday) = (has(2, shown.day()), has(4, shown.weekday().to_sunday_zero_offset()));
        let day = if self.stars { day && weekday } else { day || weekday };
        let hour = u8::try_from(shown.hour()).unwrap();
        let awake = match (self.active.start, self.active.end) {
            (start, end) if start == end => true,
            (start, end) if start < end => start <= hour && hour < end,
            (start, end) => start <= hour || hour < end,
        };
        has(0, shown.minute()) && has(1, shown.hour()) && has(3, shown.month()) && day && awake
    }

    /// Minute by minute: which of them run, told by what the clock showed at each.
    fn slots(&self, zone: &TimeZone, from: i64, to: i64) -> Vec<Timestamp> {
        let shows = |time: i64| zone.to_datetime(jiff::Timestamp::from_millisecond(time).unwrap());
        let (mut slots, one) = (Vec::new(), jiff::SignedDuration::from_mins(1));
        // The latest minute that was shown so far: what is not later than it comes a second time.
        let mut latest = (from - DAY..from).step_by(60_000).map(shows).max().unwrap();
        for time in (from..to).step_by(60_000) {
            let shown = shows(time);
            let mut wanted = self.wants(shown) && shown > latest;
            // What was left out since the last minute.
            let mut minute = latest.checked_add(one).unwrap();
            while minute < shown {
                wanted |= self.wants(minute);
                minute = minute.checked_add(one).unwrap();
            }
            latest = latest.max(shown);
            if wanted {
                slots.push(Timestamp(time));
            }
        }
        slots
    }
}

/// Where the clock of a zone is changed, and other places, over the years.
fn window(dice: &mut Dice, zone: &TimeZone) -> (i64, i64) {
    let somewhere = START + i64::try_from(dice.roll(365 * YEARS as u64)).unwrap() * DAY;
    let change = zone.following(jiff::Timestamp::from_millisecond(somewhere).unwrap()).next();
    let middle = match change {
        Some(change) if dice.roll(4) > 0 => change.timestamp().as_millisecond(),
        _ => somewhere,
    };
    let from = (middle - i64::try_from(dice.roll(5 * 24 * 60)).unwrap() * MINUTE).div_euclid(DAY) * DAY;
    (from, from + 9 * DAY)
}

#[test]
fn slots_are_those_of_a_minute_by_minute_reference() {
    let mut seen = 0;
    for seed in 0..350 {
        let mut dice = Dice::of(seed);
        let (zone, reference) = (dice.zone(), Reference::roll(&mut dice));
        let timing = reference.timing();
        let (from, to) = window(&mut dice, &zone);
        let expected = reference.slots(&zone, from, to);
        let mut found = Vec::new();
        let mut after = Timestamp(from - 1);
        while let Some(slot) = next_slot(&timing, after, &zone).filter(|slot| slot.0 < to) {
            found.push(slot);
            after = slot;
        }
        seen += found.len();
        assert_eq!(found, expected, "seed {seed}: {} {:?} in {zone:?}", reference.text, reference.active);
    }
    assert!(seen > 30_000, "{seen} slots are too few to say much");
}

#[test]
fn a_whole_year_of_one_job_has_its_slots() {
    for name in ZONES {
        let zone = TimeZone::posix(name).unwrap();
        let every_day = BTreeSet::from([30]);
        let sets = [
            every_day,
            BTreeSet::from([0, 1, 2, 3]),
            (1..=31).collect(),
            (1..=12).collect(),
            (0..=6).collect(),
        ];
        let reference =
            Reference { text: "30 0-3 * * *".to_owned(), stars: true, sets, active: ActiveHours::ALWAYS };
        let (from, to) = (START, START + 366 * DAY);
        let mut after = Timestamp(from - 1);
        let mut found = Vec::new();
        while let Some(slot) = next_slot(&reference.timing(), after, &zone).filter(|slot| slot.0 < to) {
            found.push(slot);
            after = slot;
        }
        assert_eq!(found, reference.slots(&zone, from, to), "{name}");
    }
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect(text)
}

fn expression(text: &str) -> Timing {
    let rhythm = Rhythm::Expression(Expression::parse(text).unwrap());
    Timing { rhythm, active: ActiveHours::ALWAYS, anchor: Timestamp(START), once: false }
}

fn every(seconds: u64, anchor: Timestamp) -> Timing {
    let rhythm = Rhythm::Every(Duration::from_secs(seconds));
    Timing { rhythm, active: ActiveHours::ALWAYS, anchor, once: false }
}

fn upcoming(timing: &Timing, after: &str, zone: &TimeZone, count: usize) -> Vec<String> {
    let mut after = time(after);
    let mut found = Vec::new();
    while found.len() < count
        && let Some(slot) = next_slot(timing, after, zone)
    {
        found.push(slot.to_rfc3339());
        after = slot;
    }
    found
}

#[test]
fn a_slot_in_the_gap_comes_at_its_end_and_a_doubled_hour_comes_once() {
    let york = TimeZone::posix(ZONES[0]).unwrap();
    // 2026-03-08: 02:00 to 03:00 is left out. Four slots in the gap are one.
    assert_eq!(
        upcoming(&expression("*/15 2 * * *"), "2026-03-08T05:00:00Z", &york, 2),
        ["2026-03-08T07:00:00Z", "2026-03-09T06:00:00Z"]
    );
    // A slot at the end of the gap is the same one.
    assert_eq!(
        upcoming(&expression("0,30 2,3 * * *"), "2026-03-08T05:00:00Z", &york, 2),
        ["2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"]
    );
    // 2026-11-01: 01:00 to 02:00 comes twice, first in summer time.
    assert_eq!(
        upcoming(&expression("30 1 * * *"), "2026-11-01T04:00:00Z", &york, 2),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    // From within the second pass, nothing of it comes again.
    assert_eq!(
        upcoming(&expression("45 * * * *"), "2026-11-01T06:10:00Z", &york, 1),
        ["2026-11-01T07:45:00Z"]
    );
    // An interval counts real time.
    let hourly = every(3600, time("2026-11-01T04:30:00Z"));
    assert_eq!(
        upcoming(&hourly, "2026-11-01T05:00:00Z", &york, 3),
        ["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:30:00Z"]
    );
}

#[test]
fn rare_days_come_and_impossible_ones_do_not() {
    let zone = TimeZone::UTC;
    assert_eq!(
        upcoming(&expression("0 0 29 2 *"), "2096-03-01T00:00:00Z", &zone, 1),
        ["2104-02-29T00:00:00Z"]
    );
    assert_eq!(next_slot(&expression("0 0 30 2 *"), Timestamp(START), &zone), None);
    let mut asleep = expression("0 3 * * *");
    asleep.active = ActiveHours { start: 9, end: 17 };
    assert_eq!(next_slot(&asleep, Timestamp(START), &zone), None);
    let mut never = every(7 * 86_400, time("2026-01-01T12:00:00Z"));
    never.active = ActiveHours { start: 9, end: 10 };
    assert_eq!(next_slot(&never, time("2026-01-02T00:00:00Z"), &zone), None);
    for extreme in [i64::MIN, i64::MAX] {
        next_slot(&expression("* * * * *"), Timestamp(extreme), &zone);
        next_slot(&every(60, Timestamp(START)), Timestamp(extreme), &zone);
    }
}

#[test]
fn active_hours_wrap_over_midnight_and_equal_ones_mean_always() {
    let night = ActiveHours { start: 22, end: 6 };
    let hours: Vec<u8> = (0..24).filter(|hour| night.contains(*hour)).collect();
    assert_eq!(hours, [0, 1, 2, 3, 4, 5, 22, 23]);
    assert!((0..24).all(|hour| ActiveHours { start: 7, end: 7 }.contains(hour)));
    let zone = TimeZone::UTC;
    let mut timing = every(3600, time("2026-01-01T00:30:00Z"));
    timing.active = ActiveHours { start: 22, end: 1 };
    assert_eq!(
        upcoming(&timing, "2026-01-01T01:00:00Z", &zone, 4),
        ["2026-01-01T22:30:00Z", "2026-01-01T23:30:00Z", "2026-01-02T00:30:00Z", "2026-01-02T22:30:00Z"]
    );
}

#[test]
fn a_missed_slot_is_made_up_for_within_half_a_period_or_left_out() {
    let zone = TimeZone::UTC;
    let timing = every(3600, time("2026-01-01T00:00:00Z"));
    let at = |now: &str, missed| look(&timing, time(now), &[], missed, &zone);
    let slot = time("2026-01-01T05:00:00Z");
    for (now, policy, verdict) in [
        ("2026-01-01T05:00:00Z", Missed::Skip, Verdict::Run { slot }),
        ("2026-01-01T05:01:00Z", Missed::Skip, Verdict::Run { slot }),
        ("2026-01-01T05:01:01Z", Missed::Skip, Verdict::Missed { slot }),
        ("2026-01-01T05:30:00Z", Missed::RunOnce, Verdict::Run { slot }),
        ("2026-01-01T05:30:01Z", Missed::RunOnce, Verdict::Missed { slot }),
        ("2026-01-01T00:30:00Z", Missed::RunOnce, Verdict::Rest),
    ] {
        assert_eq!(at(now, policy), verdict, "{now} {policy:?}");
    }
    assert_eq!(tolerance(&every(60, slot), slot, &zone), Duration::from_secs(120));
    assert_eq!(tolerance(&every(86_400, slot), slot, &zone), Duration::from_secs(7200));
    // Claimed is claimed, also by a clock that was ahead.
    assert_eq!(look(&timing, time("2026-01-01T05:10:00Z"), &[slot], Missed::RunOnce, &zone), Verdict::Rest);
    // Nobody is woken outside of the hours by what came too late.
    let mut day = timing.clone();
    day.active = ActiveHours { start: 4, end: 6 };
    let last = time("2026-01-01T05:00:00Z");
    assert_eq!(
        look(&day, time("2026-01-01T06:20:00Z"), &[], Missed::RunOnce, &zone),
        Verdict::Missed { slot: last }
    );
}

#[test]
fn a_job_for_one_time_runs_however_late_and_only_then() {
    let zone = TimeZone::UTC;
    let mut timing = every(600, time("2026-01-01T00:00:00Z"));
    timing.once = true;
    let slot = time("2026-01-01T00:10:00Z");
    assert_eq!(next_slot(&timing, time("2026-01-01T00:05:00Z"), &zone), Some(slot));
    assert_eq!(next_slot(&timing, slot, &zone), None);
    let at = |now: &str| look(&timing, time(now), &[], Missed::Skip, &zone);
    assert_eq!(at("2026-01-01T00:09:59Z"), Verdict::Rest);
    assert_eq!(at("2026-01-01T00:10:00Z"), Verdict::Run { slot });
    assert_eq!(at("2031-01-01T00:00:00Z"), Verdict::Run { slot });
    assert_eq!(look(&timing, slot, &[slot], Missed::RunOnce, &zone), Verdict::Rest);
}

/// One life of a job under a clock that is stopped, restarted and set to and fro. What the hub does with
/// the answers is done here: look at each start, at each change of the clock and when the next slot is due.
struct Life {
    timing: Timing,
    zone: TimeZone,
    missed: Missed,
    now: i64,
    claimed: BTreeMap<Timestamp, i64>,
    /// Slots at whose very minute somebody looked.
    punctual: BTreeSet<Timestamp>,
}

impl Life {
    fn look(&mut self, valid: &dyn Fn(Timestamp) -> bool) {
        let now = Timestamp(self.now);
        let recent = now.minus(TOLERANCE_MAX);
        let claimed: Vec<Timestamp> = self.claimed.range(recent..).map(|(slot, _)| *slot).collect();
        // The reference: go back minute by minute to the latest slot.
        let oldest = self.now - i64::try_from(TOLERANCE_MAX.as_millis()).unwrap();
        let mut minute = self.now.div_euclid(MINUTE) * MINUTE;
        while minute >= oldest && !valid(Timestamp(minute)) {
            minute -= MINUTE;
        }
        let latest = Some(Timestamp(minute)).filter(|_| minute >= oldest);
        if latest.is_some_and(|slot| self.now - slot.0 <= 60_000 && slot > self.timing.anchor) {
            self.punctual.extend(latest);
        }
        match look(&self.timing, now, &claimed, self.missed, &self.zone) {
            Verdict::Run { slot } => {
                assert_eq!(Some(slot), latest, "only the latest slot runs");
                assert!(self.claimed.insert(slot, self.now).is_none(), "a slot ran twice");
                let late = now.since(slot);
                if late > ON_TIME {
                    assert_eq!(self.missed, Missed::RunOnce);
                    let next =
                        (1..=120 * 24).map(|n| Timestamp(slot.0 + n * MINUTE)).find(|slot| valid(*slot));
                    let half = next.map_or(TOLERANCE_MAX, |next| next.since(slot) / 2);
                    assert!(late <= half.clamp(TOLERANCE_MIN, TOLERANCE_MAX), "too late");
                }
            }
            Verdict::Missed { slot } => assert!(latest == Some(slot) && !self.claimed.contains_key(&slot)),
            Verdict::Rest => {
                let open =
                    latest.filter(|slot| !self.claimed.contains_key(slot) && *slot > self.timing.anchor);
                assert!(open.is_none() || self.timing.anchor.0 > self.now, "{open:?} was forgotten");
            }
        }
    }

    /// Lets time pass up to `until`, looking whenever a slot comes.
    fn wait(&mut self, until: i64, valid: &dyn Fn(Timestamp) -> bool) {
        while let Some(slot) =
            next_slot(&self.timing, Timestamp(self.now), &self.zone).filter(|slot| slot.0 <= until)
        {
            assert!(slot.0 > self.now);
            self.now = slot.0;
            self.look(valid);
        }
        self.now = until;
    }
}

#[test]
fn under_a_jumping_clock_each_slot_runs_at_most_once_and_every_punctual_one_runs() {
    let (mut ran, mut made_up) = (0, 0);
    for seed in 0..150 {
        let mut dice = Dice::of(seed);
        let (zone, reference) = (dice.zone(), Reference::roll(&mut dice));
        let (from, to) = window(&mut dice, &zone);
        let mut timing = reference.timing();
        if dice.roll(3) == 0 {
            timing.rhythm = Rhythm::Every(Duration::from_secs(60 * dice.between(1, 200)));
        }
        timing.anchor = Timestamp(from);
        let slots: BTreeSet<Timestamp> = match timing.rhythm {
            Rhythm::Expression(_) => {
                reference.slots(&zone, from - 2 * DAY, to + 3 * DAY).into_iter().collect()
            }
            Rhythm::Every(interval) => {
                let step = i64::try_from(interval.as_millis()).unwrap();
                let all = (-3 * DAY / step..=12 * DAY / step).map(|n| Timestamp(from + n * step));
                all.filter(|slot| timing.active.contains(local_hour(*slot, &zone))).collect()
            }
        };
        let valid = |slot: Timestamp| slots.contains(&slot);
        let missed = if dice.roll(3) == 0 { Missed::Skip } else { Missed::RunOnce };
        let mut life =
            Life { timing, zone, missed, now: from, claimed: BTreeMap::new(), punctual: BTreeSet::new() };
        while life.now < to {
            let minutes =
                i64::try_from(dice.roll(600)).unwrap() * MINUTE + i64::try_from(dice.roll(60_000)).unwrap();
            match dice.roll(8) {
                // Nobody runs, or the board sleeps.
                0 | 1 => life.now += minutes,
                2 => life.now += MINUTE / 2,
                // The clock is set back, by seconds or hours.
                3 => life.now = (life.now - minutes / 2).max(from - DAY),
                4 => life.now -= i64::try_from(dice.roll(90_000)).unwrap(),
                _ => {
                    let until = life.now + minutes;
                    life.wait(until, &valid);
                }
            }
            life.look(&valid);
        }
        for slot in &life.punctual {
            assert!(life.claimed.contains_key(slot), "seed {seed}: {slot:?} did not run");
        }
        ran += life.claimed.len();
        made_up += life.claimed.iter().filter(|(slot, at)| **at - slot.0 > 60_000).count();
    }
    assert!(ran > 5_000 && made_up > 80, "{ran} runs, {made_up} of them late, say too little");
}
