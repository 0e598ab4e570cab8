//! `[…schedule]` of an agent or the defaults.

use super::super::section::Section;
use super::super::{MissedSlots, ScheduleConfig};
use super::seconds;

pub(super) fn schedule(section: &Section<'_, '_>, base: &ScheduleConfig) -> ScheduleConfig {
    let policies = [("run_once", MissedSlots::RunOnce), ("skip", MissedSlots::Skip)];
    let config = ScheduleConfig {
        missed: section.choice("missed_slots", &policies).unwrap_or(base.missed),
        timeout: seconds(section, "job_timeout_secs", 10, 86_400).unwrap_or(base.timeout),
    };
    section.finish();
    config
}
