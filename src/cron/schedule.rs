//! When a job is due: pure functions of the job, the time and the zone.
//!
//! A slot is a moment at which a job shall run, and together with the job the key by which it runs at
//! most once. An expression is read on the wall clock of the zone: a minute that a change of the clock
//! leaves out counts at the first minute behind the gap, and a minute that comes twice counts the first
//! time. An interval counts real time from the job's anchor.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::expression::Expression;
use crate::clock::Timestamp;
use crate::config::MissedSlots;

/// A run that begins this late is still on time: a busy daemon, a quick restart.
pub const ON_TIME: Duration = Duration::from_secs(60);
/// Bounds of the tolerance within which a missed slot is made up for; between them it is half a period.
const TOLERANCE_MIN: Duration = Duration::from_secs(120);
pub const TOLERANCE_MAX: Duration = Duration::from_secs(7200);
/// How far ahead the next slot of an expression is looked for, in days: 29 February is at most eight years
/// away, also around a year that is no leap year.
const MAX_DAYS: usize = 366 * 9;
/// How many steps of an interval may fall outside of the active hours before it is given up: a week of
/// minutes, or decades of days.
const MAX_STEPS: i64 = 10_080;

/// How often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rhythm {
    Expression(Expression),
    Every(Duration),
}

/// Hours of the day, in the agent's zone, at which a job may run. Equal ends mean the whole day, a start
/// behind the end means over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveHours {
    pub start: u8,
    pub end: u8,
}

impl ActiveHours {
    pub const ALWAYS: Self = Self { start: 0, end: 0 };

    pub fn contains(self, hour: u8) -> bool {
        match self.start.cmp(&self.end) {
            std::cmp::Ordering::Equal => true,
            std::cmp::Ordering::Less => (self.start..self.end).contains(&hour),
            std::cmp::Ordering::Greater => hour >= self.start || hour < self.end,
        }
    }
}

/// Everything that decides when a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    pub rhythm: Rhythm,
    pub active: ActiveHours,
    /// When the job was made or switched on: slots before it are not missed, intervals count from it.
    pub anchor: Timestamp,
    /// Only the first slot behind the anchor counts, however late it comes to run.
    pub once: bool,
}

/// What a look at one job says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing, or nothing that was not claimed before.
    Rest,
    Run {
        slot: Timestamp,
    },
    /// The latest slot came too long ago, or the policy leaves it out.
    Missed {
        slot: Timestamp,
    },
}

/// The first slot behind `after`; none when there will never be one.
pub fn next_slot(timing: &Timing, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    if timing.once {
        return first_behind(timing, timing.anchor, zone).filter(|slot| *slot > after);
    }
    first_behind(timing, after, zone)
}

/// Looks at one job. `claimed` are its slots of the last [`TOLERANCE_MAX`], and later ones, that were
/// claimed before: there may be some in the future, when the clock was set back.
pub fn look(
    timing: &Timing,
    now: Timestamp,
    claimed: &[Timestamp],
    missed: MissedSlots,
    zone: &TimeZone,
) -> Verdict {
    if timing.once {
        return match first_behind(timing, timing.anchor, zone) {
            Some(slot) if slot <= now && !claimed.contains(&slot) => Verdict::Run { slot },
            _ => Verdict::Rest,
        };
    }
    let Some(slot) = latest(timing, now, zone).filter(|slot| !claimed.contains(slot)) else {
        return Verdict::Rest;
    };
    // An anchor in the future says that the clock was set back: what passed before is not ours to judge.
    let clock_went_back = timing.anchor > now;
    if !clock_went_back && slot <= timing.anchor {
        return Verdict::Rest;
    }
    let late = now.since(slot);
    if late <= ON_TIME {
        return Verdict::Run { slot };
    }
    if clock_went_back {
        return Verdict::Rest;
    }
    let in_time = late <= tolerance(timing, slot, zone);
    if missed == MissedSlots::RunOnce && in_time && timing.active.contains(local_hour(now, zone)) {
        Verdict::Run { slot }
    } else {
        Verdict::Missed { slot }
    }
}

/// How late the run of a slot may begin.
pub fn tolerance(timing: &Timing, slot: Timestamp, zone: &TimeZone) -> Duration {
    let period = first_behind(timing, slot, zone).map_or(Duration::MAX, |next| next.since(slot));
    (period / 2).clamp(TOLERANCE_MIN, TOLERANCE_MAX)
}

/// The last slot that is not behind `now`, if it is not older than any tolerance. Where slots are dense,
/// a short look back finds it.
fn latest(timing: &Timing, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let looks = [ON_TIME * 2, ON_TIME * 20, TOLERANCE_MAX];
    looks.into_iter().find_map(|back| {
        let mut found = None;
        let mut after = now.minus(back + Duration::from_millis(1));
        while let Some(slot) = first_behind(timing, after, zone).filter(|slot| *slot <= now) {
            (found, after) = (Some(slot), slot);
        }
        found
    })
}

fn first_behind(timing: &Timing, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    match &timing.rhythm {
        Rhythm::Expression(expression) => first_match(expression, timing.active, after, zone),
        Rhythm::Every(interval) => first_step(*interval, timing, after, zone),
    }
}

fn first_step(interval: Duration, timing: &Timing, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_millis()).ok().filter(|interval| *interval > 0)?;
    let steps = after.0.checked_sub(timing.anchor.0)?.div_euclid(interval);
    (1..=MAX_STEPS)
        .map_while(|more| interval.checked_mul(steps + more)?.checked_add(timing.anchor.0).map(Timestamp))
        .find(|slot| timing.active.contains(local_hour(*slot, zone)))
}

/// Active hours are those that the expression writes: 02:30 belongs to hour 2 also where the clock leaves
/// it out.
fn first_match(
    expression: &Expression,
    active: ActiveHours,
    after: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    let local = local(after, zone);
    if !expression.hours().any(|hour| active.contains(hour)) {
        return None;
    }
    // On the first day, no minute of an earlier time than this comes later than `after`.
    let mut least = (number(local.hour()), number(local.minute()));
    let mut date = local.date();
    for _ in 0..MAX_DAYS {
        if on_day(expression, date) {
            for hour in expression.hours().filter(|hour| active.contains(*hour) && *hour >= least.0) {
                for minute in expression.minutes().filter(|minute| (hour, *minute) >= least) {
                    if let Some(slot) = instant(at(date, hour, minute), zone).filter(|slot| *slot > after) {
                        return Some(slot);
                    }
                }
            }
        }
        least = (0, 0);
        date = date.tomorrow().ok()?;
    }
    None
}

fn number(number: i8) -> u8 {
    u8::try_from(number).unwrap_or_default()
}

fn on_day(expression: &Expression, date: Date) -> bool {
    let weekday = number(date.weekday().to_sunday_zero_offset());
    expression.on_day(number(date.month()), number(date.day()), weekday)
}

fn at(date: Date, hour: u8, minute: u8) -> DateTime {
    let small = |number: u8| i8::try_from(number).unwrap_or_default();
    date.at(small(hour), small(minute), 0, 0)
}

/// The moment at which the wall clock shows this minute: the first where it comes twice, the end of the
/// gap where it does not come.
fn instant(minute: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let moment = match zone.to_ambiguous_timestamp(minute).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(minute).ok()?,
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(minute).ok()?,
        AmbiguousOffset::Gap { after, .. } => {
            let ahead = after.to_timestamp(minute).ok()?;
            zone.following(ahead).next()?.timestamp()
        }
    };
    Some(Timestamp(moment.as_millisecond()))
}

fn local(time: Timestamp, zone: &TimeZone) -> DateTime {
    let clamped = jiff::Timestamp::from_millisecond(time.0).unwrap_or(if time.0 < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    zone.to_datetime(clamped)
}

/// The hour that the wall clock shows.
fn local_hour(time: Timestamp, zone: &TimeZone) -> u8 {
    number(local(time, zone).hour())
}

#[cfg(test)]
mod tests;
