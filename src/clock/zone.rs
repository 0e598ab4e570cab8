//! Time zones: where a day begins and what the clock on the wall says there. The rules are read from
//! the system's zone files, one file and nothing else: no list of all zones is made.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use super::Timestamp;

/// Where systems keep the files, the usual place first.
const FOLDERS: [&str; 3] = ["/usr/share/zoneinfo", "/usr/lib/zoneinfo", "/etc/zoneinfo"];
/// What a system says about itself: a link into one of the folders, or a copy of a file.
const LOCAL: &str = "/etc/localtime";
/// The largest file of the tz database has some 4 KB.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Longest name that is looked up; the longest that exists has 32 bytes.
const MAX_NAME_BYTES: usize = 64;

/// A time zone. Equal when it has the same name and the same rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A name that this system knows no zone for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such time zone on this system")]
pub struct UnknownZone;

impl Zone {
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of the variable `TZ` if that names one, else the system's, else UTC.
    pub fn of_system(variable: Option<&str>) -> Self {
        let named = variable.and_then(|name| name.trim_start_matches(':').parse().ok());
        named.or_else(|| Self::local(Path::new(LOCAL))).unwrap_or_else(Self::utc)
    }

    fn local(link: &Path) -> Option<Self> {
        let target = std::fs::canonicalize(link).ok()?;
        let inside = FOLDERS.iter().find_map(|folder| target.strip_prefix(folder).ok());
        let named = inside.and_then(|name| name.to_str()?.parse().ok());
        named.or_else(|| TimeZone::tzif("local", &read(&target)?).ok().map(Self))
    }

    /// `Europe/Berlin`; `local` for rules without a name.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("local")
    }

    /// The rules, for whoever computes with calendars.
    pub fn rules(&self) -> &TimeZone {
        &self.0
    }

    /// When the day of `now` began here, `days` days later (or, below zero, earlier). Days have 23 to 25
    /// hours; one that has no midnight begins when its first moment does.
    pub fn day_start(&self, now: Timestamp, days: i64) -> Timestamp {
        let start = || {
            let day = self.zoned(now)?.date().checked_add(Span::new().try_days(days).ok()?).ok()?;
            Some(Timestamp(day.to_zoned(self.0.clone()).ok()?.timestamp().as_millisecond()))
        };
        // Only times far outside of what calendars know have no day.
        start().unwrap_or(now)
    }

    /// The local time in the form of strftime; empty for a time that no calendar knows.
    pub fn format(&self, at: Timestamp, form: &str) -> String {
        self.zoned(at).map(|local| local.strftime(form).to_string()).unwrap_or_default()
    }

    fn zoned(&self, at: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_millisecond(at.0).ok()?.to_zoned(self.0.clone()))
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    /// A name of the tz database, such as `Europe/Berlin`.
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        if matches!(name, "UTC" | "Etc/UTC") {
            return Ok(Self::utc());
        }
        let plain =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '/' | '_' | '-' | '+');
        let path = name.len() <= MAX_NAME_BYTES && name.chars().all(plain);
        // Every part begins with a letter, so that no name leads out of the folder.
        let letters = name.split('/').all(|part| part.starts_with(|first: char| first.is_ascii_alphabetic()));
        if !path || !letters {
            return Err(UnknownZone);
        }
        let data = FOLDERS.iter().find_map(|folder| read(&PathBuf::from(folder).join(name)));
        data.and_then(|data| TimeZone::tzif(name, &data).ok()).map(Self).ok_or(UnknownZone)
    }
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let opened = File::open(file).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()))?;
    opened.take(MAX_FILE_BYTES).read_to_end(&mut data).ok()?;
    Some(data)
}

impl fmt::Debug for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).expect("a time")
    }

    #[test]
    fn days_begin_where_the_zone_says() {
        let cases = [
            ("UTC", "2026-11-21T10:00:00Z", 0, "2026-11-21T00:00:00Z"),
            ("Europe/Berlin", "2026-11-21T23:30:00Z", 0, "2026-11-21T23:00:00Z"),
            ("Europe/Berlin", "2026-11-21T22:30:00Z", -1, "2026-11-19T23:00:00Z"),
            ("Asia/Kathmandu", "2026-11-21T10:00:00Z", 0, "2026-11-20T18:15:00Z"),
            // Days of 23 and of 25 hours.
            ("Europe/Berlin", "2026-03-29T12:00:00Z", 0, "2026-03-28T23:00:00Z"),
            ("Europe/Berlin", "2026-03-29T12:00:00Z", 1, "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", "2026-10-25T12:00:00Z", 1, "2026-10-25T23:00:00Z"),
            // Here the day that summer time begins on has no midnight.
            ("America/Santiago", "2026-09-06T12:00:00Z", 0, "2026-09-06T04:00:00Z"),
        ];
        for (zone, now, days, expected) in cases {
            let zone: Zone = zone.parse().expect(zone);
            assert_eq!(zone.day_start(at(now), days), at(expected), "{zone:?} {now} {days}");
        }
    }

    #[test]
    fn only_names_of_zones_are_zones() {
        for name in ["Europe/Berlin", "UTC", "Etc/GMT+5", "America/Argentina/Buenos_Aires"] {
            assert_eq!(name.parse::<Zone>().expect(name).name(), name.trim_start_matches("Etc/U"), "{name}");
        }
        let wrong = [
            "",
            "Mars/Olympus",
            "../../../etc/passwd",
            "/etc/localtime",
            "Europe",
            "tzdata.zi",
            "CET-1",
            "a b",
        ];
        for name in wrong {
            assert_eq!(name.parse::<Zone>(), Err(UnknownZone), "{name}");
        }
        assert_eq!(&"z".repeat(65).parse::<Zone>(), &Err(UnknownZone));
    }

    #[test]
    fn the_system_has_a_zone_whatever_it_says() {
        assert_eq!(Zone::of_system(Some(":Asia/Tokyo")).name(), "Asia/Tokyo");
        let folder = tempfile::tempdir().expect("folder");
        let (link, copy) = (folder.path().join("link"), folder.path().join("copy"));
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Asia/Tokyo", &link).expect("link");
        std::fs::copy("/usr/share/zoneinfo/Asia/Tokyo", &copy).expect("copy");
        assert_eq!(Zone::local(&link).expect("a zone").name(), "Asia/Tokyo");
        let local = Zone::local(&copy).expect("a zone");
        assert_eq!((local.name(), local.format(Timestamp(0), "%H:%M").as_str()), ("local", "09:00"));
        assert_eq!(Zone::local(&folder.path().join("none")), None);
    }

    #[test]
    fn times_that_no_calendar_knows_do_no_harm() {
        for time in [i64::MIN, i64::MAX] {
            assert_eq!(Zone::utc().format(Timestamp(time), "%H"), "");
            assert_eq!(Zone::utc().day_start(Timestamp(time), 1), Timestamp(time));
        }
    }
}
