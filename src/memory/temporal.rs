//! Dates in a question: `in May 2023`, `on 2024-01-02`, `last Tuesday`. English, like the stems.

use std::time::Duration;

use jiff::civil::{Date, Weekday, date};
use jiff::tz::TimeZone;
use jiff::{Span as Shift, Zoned};

use crate::clock::Timestamp;

/// From and to, the latter not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Span {
    pub(super) fn contains(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.to
    }

    /// True a little before and after, too: what happened then is often told a day later.
    pub(super) fn is_near(&self, time: Timestamp) -> bool {
        self.from.minus(NEAR) <= time && time < self.to.plus(NEAR)
    }

    /// 1 for a day, less for a longer span: it says less.
    pub(super) fn worth(&self) -> f64 {
        let days = self.to.since(self.from).as_secs_f64() / 86_400.0;
        1.0 / days.max(1.0).sqrt()
    }

    fn days(from: Date, to: Date) -> Option<Self> {
        let at = |date: Date| {
            let zoned: Zoned = date.to_zoned(TimeZone::UTC).ok()?;
            Some(Timestamp(zoned.timestamp().as_millisecond()))
        };
        Some(Self { from: at(from)?, to: at(to)? })
    }
}

const NEAR: Duration = Duration::from_secs(3 * 24 * 3600);

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// The first date or span that the question names; relative ones from `now` (UTC).
pub(super) fn span_of(question: &str, now: Timestamp) -> Option<Span> {
    let lower = question.to_lowercase();
    let words: Vec<&str> = lower
        .split(|character: char| !character.is_alphanumeric() && character != '-')
        .filter(|word| !word.is_empty())
        .collect();
    let today = jiff::Timestamp::from_millisecond(now.0).ok()?.to_zoned(TimeZone::UTC).date();
    (0..words.len()).find_map(|at| absolute(&words, at).or_else(|| relative(&words, at, today)))
}

fn absolute(words: &[&str], at: usize) -> Option<Span> {
    let word = words[at];
    if let Ok(day) = word.parse::<Date>() {
        return Span::days(day, day.tomorrow().ok()?);
    }
    let month = month_of(word)?;
    let year_behind = |steps: usize| words.get(at + steps).and_then(|word| year_of(word));
    let day_before = at.checked_sub(1).and_then(|before| day_of(words[before])).or_else(|| {
        at.checked_sub(2).filter(|_| words[at - 1] == "of").and_then(|before| day_of(words[before]))
    });
    if let (Some(day), Some(year)) = (words.get(at + 1).and_then(|word| day_of(word)), year_behind(2)) {
        return one_day(year, month, day);
    }
    match (day_before, year_behind(1)) {
        (Some(day), Some(year)) => one_day(year, month, day),
        (None, Some(year)) => {
            let from = Date::new(year, month, 1).ok()?;
            Span::days(from, from.checked_add(Shift::new().months(1)).ok()?)
        }
        _ => None,
    }
}

fn relative(words: &[&str], at: usize, today: Date) -> Option<Span> {
    let shifted = |days: i32| today.checked_add(Shift::new().days(days)).ok();
    match words[at] {
        "yesterday" => Span::days(shifted(-1)?, today),
        "today" => Span::days(today, shifted(1)?),
        "last" => {
            let next = words.get(at + 1)?;
            if let Some((_, weekday)) = WEEKDAYS.iter().find(|(name, _)| name == next) {
                let day = today.nth_weekday(-1, *weekday).ok()?;
                return Span::days(day, day.tomorrow().ok()?);
            }
            match *next {
                "week" => Span::days(shifted(-7)?, shifted(1)?),
                "month" => {
                    let first = today.first_of_month();
                    Span::days(first.checked_sub(Shift::new().months(1)).ok()?, first)
                }
                "year" => Span::days(date(today.year() - 1, 1, 1), date(today.year(), 1, 1)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn one_day(year: i16, month: i8, day: i8) -> Option<Span> {
    let day = Date::new(year, month, day).ok()?;
    Span::days(day, day.tomorrow().ok()?)
}

/// Whole names and their first three letters.
fn month_of(word: &str) -> Option<i8> {
    let place =
        MONTHS.iter().position(|month| *month == word || (word.len() == 3 && month.starts_with(word)))?;
    i8::try_from(place + 1).ok()
}

fn day_of(word: &str) -> Option<i8> {
    let digits = word.trim_end_matches(|character: char| character.is_ascii_lowercase());
    digits.parse().ok().filter(|day| (1..=31).contains(day))
}

fn year_of(word: &str) -> Option<i16> {
    word.parse().ok().filter(|year| (1900..=2200).contains(year) && word.len() == 4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_questions() {
        // A Saturday.
        let now = Timestamp::parse_rfc3339("2026-11-21T10:00:00Z").unwrap();
        let cases = [
            ("Who did Maria have dinner with on May 3, 2023?", Some(("2023-05-03", "2023-05-04"))),
            ("what happened on 3rd of May 2023", Some(("2023-05-03", "2023-05-04"))),
            ("what happened on 3 May 2023", Some(("2023-05-03", "2023-05-04"))),
            ("where was Jon in May 2023?", Some(("2023-05-01", "2023-06-01"))),
            ("in december 2022", Some(("2022-12-01", "2023-01-01"))),
            ("the meeting of 2024-01-02?", Some(("2024-01-02", "2024-01-03"))),
            ("what did I say last Tuesday", Some(("2026-11-17", "2026-11-18"))),
            ("last Saturday", Some(("2026-11-14", "2026-11-15"))),
            ("yesterday's tea", Some(("2026-11-20", "2026-11-21"))),
            ("last month", Some(("2026-10-01", "2026-11-01"))),
            ("last year", Some(("2025-01-01", "2026-01-01"))),
            ("may I come in?", None),
            ("the last of them", None),
            ("31 February 2023", None),
            ("room 2023", None),
            ("", None),
        ];
        for (question, expected) in cases {
            let day = |text: &str| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")).unwrap();
            let expected = expected.map(|(from, to)| Span { from: day(from), to: day(to) });
            assert_eq!(span_of(question, now), expected, "{question}");
        }
    }
}
