//! `[defaults.working_memory]` / `[agents.working_memory]`: what happened lately, for the channel's prompt.

use std::time::Duration;

use super::DAY;

/// How much of it is kept and shown.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkingMemoryConfig {
    /// Without it nothing is recorded and nothing shown.
    pub enabled: bool,
    /// Events of today that are shown (`today_max_unsynthesized_events`, 1 to 50).
    pub today_max_events: usize,
    /// Tokens of all events together (`context_token_budget`, 200 to 20,000).
    pub token_budget: usize,
    /// Tokens of the list of other conversations (`channel_map_token_budget`, 100 to 5,000).
    pub map_token_budget: usize,
    /// Conversations in that list (`channel_map_max_channels`, 1 to 50).
    pub map_max_channels: usize,
    /// How long a conversation stays in it (`channel_map_inactive_hours`, 1 to 720).
    pub map_inactive: Duration,
    /// What is less important goes first when there is too much (`min_importance_under_pressure`, 0 to 1).
    pub min_importance: f64,
    /// Events of today that are worth a paragraph by a model (`intraday_batch_threshold`, 2 to 200).
    pub intraday_batch: usize,
    /// After this time fewer of them are worth one too (`intraday_time_fallback_secs`, 60 to 86,400).
    pub intraday_fallback: Duration,
    /// Words of the summary of a day that is over (`daily_summary_max_words`, 50 to 1,000).
    pub daily_max_words: usize,
    /// Older events are deleted (`event_retention_days`, 7 to 3,650).
    pub retention: Duration,
}

impl Default for WorkingMemoryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            today_max_events: 10,
            token_budget: 1500,
            map_token_budget: 300,
            map_max_channels: 10,
            map_inactive: Duration::from_secs(24 * 3600),
            min_importance: 0.5,
            intraday_batch: 15,
            intraday_fallback: Duration::from_secs(14_400),
            daily_max_words: 300,
            retention: 30 * DAY,
        }
    }
}
