//! `[defaults.ingestion]` and `[agents.ingestion]`: files that an agent takes into its memory.

use std::time::Duration;

use super::section::Section;

/// `[agents.ingestion]` / `[defaults.ingestion]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestionConfig {
    pub enabled: bool,
    /// Time between two looks at the folder (`poll_interval_secs`, 1 to 86,400).
    pub poll_interval: Duration,
    /// Characters that one chunk has at most (500 to 50,000).
    pub chunk_size: usize,
}

impl Default for IngestionConfig {
    fn default() -> Self {
        Self { enabled: true, poll_interval: Duration::from_secs(30), chunk_size: 4000 }
    }
}

impl IngestionConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let interval = section.number("poll_interval_secs", 1, 86_400).map(Duration::from_secs);
        let chunk_size =
            section.number("chunk_size", 500, 50_000).and_then(|number| usize::try_from(number).ok());
        let config = Self {
            enabled: section.switch("enabled").unwrap_or(base.enabled),
            poll_interval: interval.unwrap_or(base.poll_interval),
            chunk_size: chunk_size.unwrap_or(base.chunk_size),
        };
        section.finish();
        config
    }
}
