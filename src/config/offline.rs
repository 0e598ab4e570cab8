//! `[defaults.offline]` and `[agents.offline]`: what becomes of messages while no model can be asked.

use std::time::Duration;

use super::section::Section;

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfflineConfig {
    /// Messages are kept and answered when a model is back; else the offline responder answers them.
    pub defer: bool,
    /// What has waited longer is not answered any more (`max_age_hours`, 1 to 720).
    pub max_age: Duration,
}

impl Default for OfflineConfig {
    fn default() -> Self {
        Self { defer: false, max_age: HOUR * 24 }
    }
}

impl OfflineConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let hours = |hours| Duration::from_secs(hours * HOUR.as_secs());
        let config = Self {
            defer: section.switch("defer").unwrap_or(base.defer),
            max_age: section.number("max_age_hours", 1, 720).map_or(base.max_age, hours),
        };
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        writeln!(out, "[agents.offline]\ndefer = {}", self.defer)?;
        writeln!(out, "max_age_hours = {}", self.max_age.as_secs() / HOUR.as_secs())
    }
}
