//! `[defaults.participant_context]` and `[agents.participant_context]`: the people of a conversation in company,
//! as the channel's prompt lists them.

use std::fmt::{self, Write};

use super::section::Section;

/// Numbers of spec 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParticipantContextConfig {
    pub enabled: bool,
    /// With fewer people there is no list (`min_participants`, 1 to 20).
    pub least: usize,
    /// Those who spoke last are listed (`max_participants`, 1 to 20, not below `min_participants`).
    pub most: usize,
    /// Of the whole list, four bytes each (`token_budget`, 100 to 4,000).
    pub tokens: usize,
}

impl Default for ParticipantContextConfig {
    fn default() -> Self {
        Self { enabled: true, least: 1, most: 5, tokens: 400 }
    }
}

impl ParticipantContextConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let count = |key, least, most, base| {
            section.number(key, least, most).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
        };
        let config = Self {
            enabled: section.switch("enabled").unwrap_or(base.enabled),
            least: count("min_participants", 1, 20, base.least),
            most: count("max_participants", 1, 20, base.most),
            tokens: count("token_budget", 100, 4000, base.tokens),
        };
        if config.most < config.least {
            section.refuse("max_participants", "must not be below min_participants");
        }
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "[agents.participant_context]\nenabled = {}", self.enabled)?;
        writeln!(out, "min_participants = {}\nmax_participants = {}", self.least, self.most)?;
        writeln!(out, "token_budget = {}", self.tokens)
    }
}
