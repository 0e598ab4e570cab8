//! Days and months of the accounts. They are those of UTC: one day for all agents and for the daemon, none of 23
//! or 25 hours, and the one in which providers bill.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::DAY;

/// `YYYYMMDD`.
pub(super) fn day(at: Timestamp) -> i64 {
    let text = at.to_rfc3339();
    let digits: String = text.chars().filter(char::is_ascii_digit).take(8).collect();
    digits.parse().unwrap_or(0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Period {
    Day,
    Month,
}

impl Period {
    pub(super) const ALL: [Period; 2] = [Period::Day, Period::Month];

    pub(super) fn name(self) -> &'static str {
        match self {
            Period::Day => "day",
            Period::Month => "month",
        }
    }

    /// First and last day, as numbers, of the period that `day` lies in.
    pub(super) fn days(self, day: i64) -> (i64, i64) {
        match self {
            Period::Day => (day, day),
            Period::Month => (day / 100 * 100, day / 100 * 100 + 99),
        }
    }

    /// `YYYYMMDD` or `YYYYMM`.
    pub(super) fn number(self, day: i64) -> i64 {
        match self {
            Period::Day => day,
            Period::Month => day / 100,
        }
    }
}

/// So many days before.
pub(super) fn days_before(at: Timestamp, days: u64) -> i64 {
    day(at.minus(Duration::from_secs(DAY.as_secs() * days)))
}
