//! `[defaults.coalescing]` and `[agents.coalescing]`: messages in company that come together are one turn.

use std::fmt::{self, Write};
use std::time::Duration;

use super::section::Section;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoalescingConfig {
    pub enabled: bool,
    /// A turn begins when nobody has written for this time (`debounce_ms`, 100 to 60,000).
    pub debounce: Duration,
    /// The first message waits no longer than this (`max_wait_ms`, 100 to 60,000, not below `debounce_ms`).
    pub max_wait: Duration,
    /// When so many wait, a further one does not put the turn off any more (1 to 32).
    pub min_messages: usize,
    /// Who writes directly is answered at once.
    pub multi_user_only: bool,
}

impl Default for CoalescingConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            debounce: Duration::from_millis(1500),
            max_wait: Duration::from_millis(5000),
            min_messages: 2,
            multi_user_only: true,
        }
    }
}

impl CoalescingConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let milliseconds = |key, base| section.number(key, 100, 60_000).map_or(base, Duration::from_millis);
        let min_messages =
            section.number("min_messages", 1, 32).and_then(|number| usize::try_from(number).ok());
        let config = Self {
            enabled: section.switch("enabled").unwrap_or(base.enabled),
            debounce: milliseconds("debounce_ms", base.debounce),
            max_wait: milliseconds("max_wait_ms", base.max_wait),
            min_messages: min_messages.unwrap_or(base.min_messages),
            multi_user_only: section.switch("multi_user_only").unwrap_or(base.multi_user_only),
        };
        if config.max_wait < config.debounce {
            section.refuse("max_wait_ms", "must not be below debounce_ms");
        }
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "[agents.coalescing]\nenabled = {}", self.enabled)?;
        writeln!(out, "debounce_ms = {}", self.debounce.as_millis())?;
        writeln!(out, "max_wait_ms = {}", self.max_wait.as_millis())?;
        writeln!(out, "min_messages = {}\nmulti_user_only = {}", self.min_messages, self.multi_user_only)
    }
}
