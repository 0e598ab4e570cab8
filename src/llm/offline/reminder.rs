//! When to remind and of what, read out of a message such as `remind me in 10 minutes to call Ann` or
//! `remind me to water the plants every monday at 9`. The words are those of the phrase table.

use jiff::civil::Date;
use serde_json::{Map, Value, json};

use super::phrases::WhenWords;

/// Words of a message that are looked at; a reminder with more is not read.
const MAX_WORDS: usize = 200;
/// The hour of a day that is named without one.
const MORNING: (u32, u32) = (9, 0);
const DAY_SECONDS: u64 = 86_400;

/// What the `cron` tool is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reminder {
    pub(super) what: String,
    pub(super) arguments: Map<String, Value>,
    pub(super) again: bool,
}

/// One word of the message and where it stands.
struct Word<'a> {
    text: &'a str,
    normal: String,
    start: usize,
}

impl Word<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is(&self, words: &[String]) -> bool {
        words.contains(&self.normal)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Days {
    /// Whenever the time comes next.
    Next,
    Tomorrow,
    Weekday(usize),
    EveryDay,
    EveryWeekday(usize),
    Workdays,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    In(u64),
    Every(u64),
    At(Days, Option<(u32, u32)>),
}

/// None when the message does not say when, or not of what.
pub(super) fn find(words: &WhenWords, text: &str, today: Date) -> Option<Reminder> {
    let all = split(text)?;
    let order = all.windows(2).position(|pair| pair[0].is(&words.remind) && pair[1].is(&words.whom))?;
    let (before, after) = (&all[..order], &all[order + 2..]);
    let (when, what) = match before {
        [] => within(words, text, after)?,
        before => {
            let when = Reader { words, left: before }.all()?;
            (when, written(words, text, after))
        }
    };
    if what.trim().is_empty() {
        return None;
    }
    let arguments = arguments(when, today)?;
    let again = !matches!(when, When::In(_) | When::At(Days::Next | Days::Tomorrow | Days::Weekday(_), _));
    Some(Reminder { what, arguments, again })
}

fn split(text: &str) -> Option<Vec<Word<'_>>> {
    let mut found = Vec::new();
    let mut at = 0;
    for piece in text.split_whitespace() {
        let start = at + text[at..].find(piece)?;
        at = start + piece.len();
        let normal = piece.trim_matches([',', ';', ':', '!', '?', '.', '"']).to_lowercase();
        found.push(Word { text: piece, normal, start });
    }
    (found.len() <= MAX_WORDS).then_some(found)
}

/// The time stands before or behind what it is for; a day may stand before and its hour behind.
fn within(words: &WhenWords, text: &str, after: &[Word<'_>]) -> Option<(When, String)> {
    let mut reader = Reader { words, left: after };
    if let Some(when) = reader.when() {
        let rest = reader.left;
        if let When::At(days, None) = when
            && let Some((at, time)) =
                (1..rest.len()).find_map(|at| Some((at, Reader { words, left: &rest[at..] }.only_time()?)))
        {
            return Some((When::At(days, Some(time)), written(words, text, &rest[..at])));
        }
        return Some((when, written(words, text, rest)));
    }
    (1..after.len()).find_map(|at| {
        let when = Reader { words, left: &after[at..] }.all()?;
        Some((when, written(words, text, &after[..at])))
    })
}

/// As it was written, without the word that joins it to what stands before.
fn written(words: &WhenWords, text: &str, mut part: &[Word<'_>]) -> String {
    while let [first, rest @ ..] = part
        && first.is(&words.joins)
    {
        part = rest;
    }
    match part {
        [first, .., last] => text[first.start..last.end()].to_owned(),
        [only] => only.text.to_owned(),
        [] => String::new(),
    }
    .trim_end_matches([',', ';'])
    .to_owned()
}

/// Reads a time from the front.
struct Reader<'a, 'w> {
    words: &'a WhenWords,
    left: &'a [Word<'w>],
}

impl Reader<'_, '_> {
    fn all(mut self) -> Option<When> {
        let when = self.when()?;
        self.left.is_empty().then_some(when)
    }

    fn only_time(mut self) -> Option<(u32, u32)> {
        let time = self.time()?;
        self.left.is_empty().then_some(time)
    }

    fn take(&mut self, words: &[String]) -> bool {
        let found = self.left.first().is_some_and(|word| word.is(words));
        if found {
            self.left = &self.left[1..];
        }
        found
    }

    fn when(&mut self) -> Option<When> {
        let words = self.words;
        if self.take(&words.inside) {
            return self.duration().map(When::In);
        }
        if self.take(&words.every) {
            return self.repeated();
        }
        if let Some(time) = self.time() {
            let days = self.days().unwrap_or(Days::Next);
            return Some(When::At(days, Some(time)));
        }
        let days = self.days()?;
        let time = self.time();
        Some(When::At(days, time))
    }

    /// Behind `every`.
    fn repeated(&mut self) -> Option<When> {
        let words = self.words;
        let days = if self.take(&words.units.day) || self.take(&words.morning) {
            Days::EveryDay
        } else if self.take(&words.workday) {
            Days::Workdays
        } else if let Some(weekday) = self.weekday() {
            Days::EveryWeekday(weekday)
        } else {
            let seconds = self.unit().or_else(|| self.duration())?;
            return Some(When::Every(seconds));
        };
        let time = self.time();
        Some(When::At(days, time))
    }

    fn days(&mut self) -> Option<Days> {
        let words = self.words;
        if self.take(&words.today) {
            return Some(Days::Next);
        }
        if self.take(&words.tomorrow) {
            return Some(Days::Tomorrow);
        }
        if self.take(&words.daily) {
            return Some(Days::EveryDay);
        }
        if self.take(&words.every) {
            return match self.repeated()? {
                When::At(days, None) => Some(days),
                _ => None,
            };
        }
        let left = self.left;
        self.take(&words.on);
        let weekday = self.weekday().map(Days::Weekday);
        if weekday.is_none() {
            self.left = left;
        }
        weekday
    }

    fn weekday(&mut self) -> Option<usize> {
        let names = &self.words.weekdays;
        let found = names.iter().position(|names| self.left.first().is_some_and(|word| word.is(names)))?;
        self.left = &self.left[1..];
        Some(found)
    }

    /// `at 9`, `at 9:30`, `at 5 pm`, `at noon`.
    fn time(&mut self) -> Option<(u32, u32)> {
        let words = self.words;
        let left = self.left;
        let time = if self.take(&words.at) { self.clock() } else { None };
        if time.is_none() {
            self.left = left;
        }
        time
    }

    fn clock(&mut self) -> Option<(u32, u32)> {
        let words = self.words;
        if self.take(&words.noon) {
            return Some((12, 0));
        }
        if self.take(&words.midnight) {
            return Some((0, 0));
        }
        let word = self.left.first()?;
        let written = word.normal.as_str();
        let digits = written.trim_end_matches(|character: char| character.is_alphabetic());
        let behind = written[digits.len()..].to_owned();
        let (hour, minute) = digits.split_once([':', '.']).unwrap_or((digits, "0"));
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        self.left = &self.left[1..];
        let says = |half: &[String]| half.contains(&behind);
        let (am, pm) = match behind.is_empty() {
            true => (self.take(&words.am), self.take(&words.pm)),
            false => (says(&words.am), says(&words.pm)),
        };
        if !(behind.is_empty() || am || pm) {
            return None;
        }
        let hour = match (am, pm, hour) {
            (false, false, _) => hour,
            (_, _, 0 | 13..) => return None,
            (true, _, _) => hour % 12,
            (_, true, _) => hour % 12 + 12,
        };
        (hour < 24 && minute < 60).then_some((hour, minute))
    }

    /// `10 minutes`, `an hour`, `half an hour`, `2 hours and 30 minutes`.
    fn duration(&mut self) -> Option<u64> {
        let words = self.words;
        let half = self.take(&words.half);
        let mut seconds = self.counted(half)?;
        if self.take(&words.and) {
            seconds = seconds.checked_add(self.counted(false)?)?;
        }
        let seconds = if half { seconds / 2 } else { seconds };
        (seconds > 0).then_some(seconds)
    }

    fn counted(&mut self, half: bool) -> Option<u64> {
        let words = self.words;
        let count = if self.take(&words.one) {
            1
        } else {
            match self.left.first().and_then(|word| word.normal.parse::<u64>().ok()) {
                Some(count) => {
                    self.left = &self.left[1..];
                    count
                }
                None if half => 1,
                None => return None,
            }
        };
        count.checked_mul(self.unit()?)
    }

    fn unit(&mut self) -> Option<u64> {
        let units = &self.words.units;
        let known = [
            (&units.second, 1),
            (&units.minute, 60),
            (&units.hour, 3600),
            (&units.day, DAY_SECONDS),
            (&units.week, 7 * DAY_SECONDS),
        ];
        known.into_iter().find(|(names, _)| self.take(names)).map(|(_, seconds)| seconds)
    }
}

fn arguments(when: When, today: Date) -> Option<Map<String, Value>> {
    let arguments = match when {
        When::In(seconds) => json!({ "interval_secs": seconds, "run_once": true }),
        When::Every(seconds) => json!({ "interval_secs": seconds, "run_once": false }),
        When::At(days, time) => {
            let (hour, minute) = time.unwrap_or(MORNING);
            let (day, once) = match days {
                // A day without an hour is over when nobody says which.
                Days::Next => (time.map(|_| "* * *".to_owned())?, true),
                Days::Tomorrow => {
                    let tomorrow = today.tomorrow().ok()?;
                    (format!("{} {} *", tomorrow.day(), tomorrow.month()), true)
                }
                Days::Weekday(weekday) => (format!("* * {weekday}"), true),
                Days::EveryDay => ("* * *".to_owned(), false),
                Days::EveryWeekday(weekday) => (format!("* * {weekday}"), false),
                Days::Workdays => ("* * 1-5".to_owned(), false),
            };
            json!({ "cron_expr": format!("{minute} {hour} {day}"), "run_once": once })
        }
    };
    arguments.as_object().cloned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::phrases::table;
    use super::*;

    fn read(text: &str) -> Option<(String, String, bool)> {
        let words = &table().unwrap().when;
        let found = find(words, text, "2026-11-30".parse().unwrap())?;
        let field = |name: &str| found.arguments.get(name).map(|value| value.to_string().replace('"', ""));
        let when = field("cron_expr").or(field("interval_secs")).unwrap();
        assert_eq!(found.arguments["run_once"], json!(!found.again));
        Some((when, found.what, found.again))
    }

    #[test]
    fn times_are_read_before_and_behind_what_they_are_for() {
        let once = [
            ("remind me in 10 minutes to call Ann", "600", "call Ann"),
            ("Remind me to call Ann in 1 second", "1", "call Ann"),
            ("remind me in half an hour that the cake is done", "1800", "the cake is done"),
            ("remind me to stretch in an hour", "3600", "stretch"),
            (
                "remind us in 2 hours and 30 minutes about the train, the late one",
                "9000",
                "the train, the late one",
            ),
            ("remind me in 3 days: pay the rent.", "259200", "pay the rent."),
            ("in 5 mins, remind me to turn it off", "300", "turn it off"),
            ("remind me at 15:30 to call Ann", "30 15 * * *", "call Ann"),
            ("remind me to call Ann at 9", "0 9 * * *", "call Ann"),
            ("remind me at 5 pm to leave", "0 17 * * *", "leave"),
            ("remind me to leave at 12am", "0 0 * * *", "leave"),
            ("remind me at noon to eat", "0 12 * * *", "eat"),
            ("remind me today at 18.05 to swim", "5 18 * * *", "swim"),
            ("remind me to call Ann tomorrow", "0 9 1 12 *", "call Ann"),
            ("remind me tomorrow to call Ann at 8:15", "15 8 1 12 *", "call Ann"),
            ("remind me to call Ann at 8:15 tomorrow", "15 8 1 12 *", "call Ann"),
            ("remind me on Friday at 7 to put the bins out", "0 7 * * 5", "put the bins out"),
            ("remind me to look in the oven in 20 minutes", "1200", "look in the oven"),
            ("remind me to be at the station at 6am on sunday", "0 6 * * 0", "be at the station"),
        ];
        for (text, when, what) in once {
            assert_eq!(read(text), Some((when.to_owned(), what.to_owned(), false)), "{text}");
        }
        let again = [
            ("remind me every day at 21:00 to lock the door", "0 21 * * *", "lock the door"),
            ("remind me to drink every 2 hours", "7200", "drink"),
            ("remind me every hour to stand up", "3600", "stand up"),
            ("every monday at 9 remind me to write the report", "0 9 * * 1", "write the report"),
            ("remind me to stand up every weekday at 9:30", "30 9 * * 1-5", "stand up"),
            ("remind me at 8 every morning to take the pill", "0 8 * * *", "take the pill"),
            ("remind me daily at 7pm to feed the cat", "0 19 * * *", "feed the cat"),
        ];
        for (text, when, what) in again {
            assert_eq!(read(text), Some((when.to_owned(), what.to_owned(), true)), "{text}");
        }
    }

    #[test]
    fn without_a_time_or_a_purpose_there_is_no_reminder() {
        for text in [
            "remind me to call Ann",
            "remind me",
            "remind me in 10 minutes",
            "remind me at 25:00 to sleep",
            "remind me at 13pm to sleep",
            "remind me in the morning to call",
            "remind me in 99999999999999999999 minutes to call",
            "remind me in 0 minutes to call",
            "remind me today to call",
            "who reminds me at 9",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        let many = format!("remind me in 10 minutes to {}", "go ".repeat(MAX_WORDS));
        assert_eq!(read(&many), None);
    }
}
