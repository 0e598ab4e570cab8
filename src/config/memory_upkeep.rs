//! `[defaults.memory_upkeep]` and `[agents.memory_upkeep]`: how memories fade, are pruned, tied and merged.

use std::fmt::Write;
use std::time::Duration;

use super::section::Section;

const DAY: Duration = Duration::from_secs(86_400);

/// Numbers of spec 1.6 and 2.5.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryUpkeepConfig {
    /// Least time between two rounds of pruning and merging (`interval_secs`, 60 to 604,800).
    pub interval: Duration,
    /// Share of its importance that a memory loses in a day, until half of it is gone (0 to 1).
    pub decay_per_day: f64,
    /// A memory that is less important than this is pruned (0 to 1; 0: none is), if it is old enough.
    pub prune_below: f64,
    /// (`prune_age_days`, 1 to 3,650.)
    pub prune_age: Duration,
    /// Cosine from which two memories are tied (0 to 1).
    pub tie_similarity: f64,
    /// Cosine from which one of two says what the other says, and they are merged (0 to 1).
    pub merge_similarity: f64,
}

impl Default for MemoryUpkeepConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3600),
            decay_per_day: 0.05,
            prune_below: 0.1,
            prune_age: 30 * DAY,
            tie_similarity: 0.85,
            merge_similarity: 0.95,
        }
    }
}

impl MemoryUpkeepConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let config = Self {
            interval: section.number("interval_secs", 60, 604_800).map_or(base.interval, Duration::from_secs),
            decay_per_day: section.fraction("decay_per_day").unwrap_or(base.decay_per_day),
            prune_below: section.fraction("prune_below").unwrap_or(base.prune_below),
            prune_age: section
                .number("prune_age_days", 1, 3650)
                .map_or(base.prune_age, |days| Duration::from_secs(days * DAY.as_secs())),
            tie_similarity: section.fraction("tie_similarity").unwrap_or(base.tie_similarity),
            merge_similarity: section.fraction("merge_similarity").unwrap_or(base.merge_similarity),
        };
        if config.merge_similarity < config.tie_similarity {
            section.refuse("merge_similarity", "must not be below `tie_similarity`");
        }
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[agents.memory_upkeep]\ninterval_secs = {}", self.interval.as_secs())?;
        writeln!(out, "decay_per_day = {}", self.decay_per_day)?;
        writeln!(out, "prune_below = {}", self.prune_below)?;
        writeln!(out, "prune_age_days = {}", self.prune_age.as_secs() / DAY.as_secs())?;
        writeln!(out, "tie_similarity = {}", self.tie_similarity)?;
        writeln!(out, "merge_similarity = {}", self.merge_similarity)
    }
}
