//! `timezone` and `[…working_memory]` of an agent or the defaults.

use std::time::Duration;

use super::super::section::Section;
use super::super::{DAY, WorkingMemoryConfig};
use crate::clock::Zone;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn timezone(section: &Section<'_, '_>, base: &Zone) -> Zone {
    let wanted = "a time zone that this system knows, such as \"Europe/Berlin\"";
    section.parsed("timezone", wanted).unwrap_or_else(|| base.clone())
}

pub(super) fn working_memory(section: &Section<'_, '_>, base: &WorkingMemoryConfig) -> WorkingMemoryConfig {
    let count = |key, least, most, base: usize| {
        section.number(key, least, most).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
    };
    let times = |key, least, most, unit: Duration, base: Duration| {
        let number = section.number(key, least, most);
        number.map_or(base, |number| Duration::from_secs(number * unit.as_secs()))
    };
    let config = WorkingMemoryConfig {
        enabled: section.switch("enabled").unwrap_or(base.enabled),
        today_max_events: count("today_max_unsynthesized_events", 1, 50, base.today_max_events),
        token_budget: count("context_token_budget", 200, 20_000, base.token_budget),
        map_token_budget: count("channel_map_token_budget", 100, 5_000, base.map_token_budget),
        map_max_channels: count("channel_map_max_channels", 1, 50, base.map_max_channels),
        map_inactive: times("channel_map_inactive_hours", 1, 720, HOUR, base.map_inactive),
        min_importance: section.fraction("min_importance_under_pressure").unwrap_or(base.min_importance),
        intraday_batch: count("intraday_batch_threshold", 2, 200, base.intraday_batch),
        intraday_fallback: times("intraday_time_fallback_secs", 60, 86_400, SECOND, base.intraday_fallback),
        daily_max_words: count("daily_summary_max_words", 50, 1_000, base.daily_max_words),
        retention: times("event_retention_days", 7, 3650, DAY, base.retention),
    };
    section.finish();
    config
}
