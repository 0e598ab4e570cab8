//! `[defaults.memory_persistence]` and `[agents.memory_persistence]`: memories that are taken from a
//! conversation while it goes on.

use std::time::Duration;

use super::section::Section;

/// Each threshold begins a run by itself; zero switches it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPersistenceConfig {
    pub enabled: bool,
    /// Messages of people since the last run (`message_threshold`, 0 to 1,000).
    pub messages: usize,
    /// Time since the first of them (`time_threshold_secs`, 0 to 86,400).
    pub time: Duration,
    /// Events of the working memory since the last run (`event_threshold`, 0 to 1,000).
    pub events: usize,
}

impl Default for MemoryPersistenceConfig {
    fn default() -> Self {
        Self { enabled: true, messages: 20, time: Duration::from_secs(900), events: 5 }
    }
}

impl MemoryPersistenceConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let count = |key, base| {
            section.number(key, 0, 1000).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
        };
        let config = Self {
            enabled: section.switch("enabled").unwrap_or(base.enabled),
            messages: count("message_threshold", base.messages),
            time: section.number("time_threshold_secs", 0, 86_400).map_or(base.time, Duration::from_secs),
            events: count("event_threshold", base.events),
        };
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        writeln!(out, "[agents.memory_persistence]\nenabled = {}", self.enabled)?;
        writeln!(out, "message_threshold = {}", self.messages)?;
        writeln!(out, "time_threshold_secs = {}", self.time.as_secs())?;
        writeln!(out, "event_threshold = {}", self.events)
    }
}
