//! `[defaults.cortex]` / `[agents.cortex]`: the observer of an agent.

use std::fmt::Write;
use std::time::Duration;

use super::section::Section;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CortexConfig {
    /// Without it there is no bulletin, memories are tended at the end of a branch only,
    /// and nobody is taken for stuck.
    pub enabled: bool,
    /// Least time between two passes, and a pass needs a change (`tick_interval_secs`, 5 to 3,600).
    pub tick_interval: Duration,
    /// Least time between two changes of the bulletin, unless a memory of it is gone
    /// (`bulletin_interval_secs`, 5 to 86,400).
    pub bulletin_interval: Duration,
    /// Words of the bulletin (50 to 2,000).
    pub bulletin_max_words: usize,
    /// Failures in a row that switch an errand off for a while, or a tool's that are noted (1 to 10).
    pub circuit_breaker_threshold: u32,
    /// A worker without any activity is ended (`stuck_worker_secs`, 10 to 86,400).
    pub stuck_worker: Duration,
}

impl Default for CortexConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            tick_interval: Duration::from_secs(30),
            bulletin_interval: Duration::from_secs(900),
            bulletin_max_words: 500,
            circuit_breaker_threshold: 3,
            stuck_worker: Duration::from_secs(600),
        }
    }
}

impl CortexConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let seconds = |key, least, most, base| {
            section.number(key, least, most).map(Duration::from_secs).unwrap_or(base)
        };
        let count = |key, least, most, base: usize| {
            section.number(key, least, most).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
        };
        let threshold = section.number("circuit_breaker_threshold", 1, 10);
        let config = Self {
            enabled: section.switch("enabled").unwrap_or(base.enabled),
            tick_interval: seconds("tick_interval_secs", 5, 3600, base.tick_interval),
            bulletin_interval: seconds("bulletin_interval_secs", 5, 86_400, base.bulletin_interval),
            bulletin_max_words: count("bulletin_max_words", 50, 2000, base.bulletin_max_words),
            circuit_breaker_threshold: threshold
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(base.circuit_breaker_threshold),
            stuck_worker: seconds("stuck_worker_secs", 10, 86_400, base.stuck_worker),
        };
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[agents.cortex]\nenabled = {}", self.enabled)?;
        let numbers = [
            ("tick_interval_secs", self.tick_interval.as_secs()),
            ("bulletin_interval_secs", self.bulletin_interval.as_secs()),
            ("bulletin_max_words", self.bulletin_max_words as u64),
            ("circuit_breaker_threshold", u64::from(self.circuit_breaker_threshold)),
            ("stuck_worker_secs", self.stuck_worker.as_secs()),
        ];
        numbers.iter().try_for_each(|(key, number)| writeln!(out, "{key} = {number}"))
    }
}
