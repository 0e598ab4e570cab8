//! The five fields of a cron expression: minute, hour, day of the month, month, day of the week.
//!
//! A field is `*`, a value, a range, a step over either, or a list of those; months and days of the
//! week may be named. Where both day fields are restricted, either one suffices, as in every cron.

use std::fmt;

/// Longest expression, in bytes: five fields of lists.
const MAX_BYTES: usize = 256;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What stands for a whole expression.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Why a text is no cron expression, in words for the one who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cron expression: {1}")]
pub struct ExpressionError(String, String);

/// An expression that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    minutes: Bits,
    hours: Bits,
    days: Bits,
    months: Bits,
    weekdays: Bits,
    /// The day field begins with `*`: then only the other one decides.
    any_day: bool,
    any_weekday: bool,
}

/// A set of numbers below 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bits(u64);

impl Bits {
    fn has(self, number: u8) -> bool {
        self.0 >> number & 1 == 1
    }

    fn numbers(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |number| self.has(*number))
    }
}

/// One field: what it may hold and how its values may be named.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of the month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    // 7 is Sunday too.
    Field { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS },
];

impl Expression {
    /// # Errors
    /// In words for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let wrong = |reason: String| ExpressionError(text.chars().take(MAX_BYTES).collect(), reason);
        if text.len() > MAX_BYTES {
            return Err(wrong(format!("longer than {MAX_BYTES} bytes")));
        }
        let trimmed = text.trim().to_lowercase();
        let shorthand = SHORTHANDS.iter().find(|(name, _)| *name == trimmed);
        let written = shorthand.map_or(trimmed.as_str(), |(_, meaning)| *meaning);
        let parts: Vec<&str> = written.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts[..] else {
            return Err(wrong(format!(
                "it has {} fields instead of 5 (minute, hour, day of the month, month, day of the week)",
                parts.len()
            )));
        };
        let read = |index: usize, part: &str| FIELDS[index].read(part).map_err(wrong);
        let weekdays = read(4, weekday)?.0;
        Ok(Self {
            text: parts.join(" "),
            minutes: read(0, minute)?,
            hours: read(1, hour)?,
            days: read(2, day)?,
            months: read(3, month)?,
            weekdays: Bits((weekdays | weekdays >> 7) & 0x7f),
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        })
    }

    /// `weekday` counts from Sunday, which is 0.
    pub(super) fn on_day(&self, month: u8, day: u8, weekday: u8) -> bool {
        let (by_day, by_weekday) = (self.days.has(day), self.weekdays.has(weekday));
        let fits = if self.any_day || self.any_weekday { by_day && by_weekday } else { by_day || by_weekday };
        self.months.has(month) && fits
    }

    pub(super) fn hours(&self) -> impl Iterator<Item = u8> {
        self.hours.numbers()
    }

    pub(super) fn minutes(&self) -> impl Iterator<Item = u8> {
        self.minutes.numbers()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Field {
    fn read(&self, text: &str) -> Result<Bits, String> {
        let mut bits = 0;
        for item in text.split(',') {
            bits |= self.item(item)?;
        }
        Ok(Bits(bits))
    }

    /// `*`, `5`, `1-5`, each with an optional `/step`.
    fn item(&self, item: &str) -> Result<u64, String> {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(self.step(step)?)),
            None => (item, None),
        };
        let (first, last) = match (base, base.split_once('-')) {
            // Sunday stands once in `*`.
            ("*", _) => (self.least, self.most.min(if self.most == 7 { 6 } else { 59 })),
            (_, Some((first, last))) => (self.value(first)?, self.value(last)?),
            (_, None) => {
                let value = self.value(base)?;
                // `5/10` goes on to the end, as everywhere.
                (value, if step.is_some() { self.most } else { value })
            }
        };
        if first > last {
            return Err(format!("the {} {base:?} runs backwards", self.name));
        }
        let step = usize::from(step.unwrap_or(1));
        Ok((first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value))
    }

    fn step(&self, text: &str) -> Result<u8, String> {
        number(text)
            .filter(|step| (1..=self.most).contains(step))
            .ok_or_else(|| format!("{text:?} is no step of the {}", self.name))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let named = self.names.iter().position(|name| *name == text).and_then(|at| u8::try_from(at).ok());
        let value = named.map(|at| at + self.least).or_else(|| number(text));
        value
            .filter(|value| (self.least..=self.most).contains(value))
            .ok_or_else(|| format!("{text:?} is no {} from {} to {}", self.name, self.least, self.most))
    }
}

/// Digits only: no sign, no blanks.
fn number(text: &str) -> Option<u8> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn minutes(field: &str) -> Vec<u8> {
        Expression::parse(&format!("{field} * * * *")).unwrap().minutes().collect()
    }

    #[test]
    fn fields_are_read_as_every_cron_reads_them() {
        assert_eq!(minutes("*").len(), 60);
        assert_eq!(minutes("5"), [5]);
        assert_eq!(minutes("5,7,5"), [5, 7]);
        assert_eq!(minutes("10-13"), [10, 11, 12, 13]);
        assert_eq!(minutes("*/20"), [0, 20, 40]);
        assert_eq!(minutes("5/20"), [5, 25, 45]);
        assert_eq!(minutes("10-20/5,59"), [10, 15, 20, 59]);
    }

    #[test]
    fn names_and_sundays_and_shorthands_are_known() {
        let same = [
            ("0 9 * jan-mar MON", "0 9 * 1-3 1"),
            ("0 9 * * 7", "0 9 * * 0"),
            ("0 9 * * 5-7", "0 9 * * 0,5,6"),
            ("@daily", "0 0 * * *"),
            (" 0  0\t1 1 * ", "@yearly"),
        ];
        for (one, other) in same {
            let (mut one, other) = (Expression::parse(one).unwrap(), Expression::parse(other).unwrap());
            one.text.clone_from(&other.text);
            assert_eq!(one, other);
        }
    }

    #[test]
    fn either_day_field_suffices_where_both_are_restricted() {
        // Friday the 13th is a day, and so is every Friday, and every 13th.
        let both = Expression::parse("0 0 13 * 5").unwrap();
        assert!(both.on_day(1, 13, 2) && both.on_day(1, 9, 5) && !both.on_day(1, 12, 4));
        let fridays = Expression::parse("0 0 * * 5").unwrap();
        assert!(fridays.on_day(1, 9, 5) && !fridays.on_day(1, 13, 2));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("* * * * * *", "6 fields"),
            ("60 * * * *", "no minute from 0 to 59"),
            ("* 24 * * *", "no hour"),
            ("* * 0 * *", "no day of the month"),
            ("* * * 13 *", "no month"),
            ("* * * * 8", "no day of the week"),
            ("*/0 * * * *", "no step"),
            ("20-10 * * * *", "backwards"),
            ("1,,2 * * * *", "\"\" is no minute"),
            ("-5 * * * *", "\"\" is no minute"),
            ("+5 * * * *", "\"+5\" is no minute"),
            ("* * * xyz *", "\"xyz\" is no month"),
            ("@reboot", "1 fields"),
        ] {
            let error = Expression::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        assert!(Expression::parse(&"1,".repeat(200)).is_err());
    }
}
