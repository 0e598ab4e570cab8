//! `[defaults.schedule]` and `[agents.schedule]`: jobs that run at their time.

use std::time::Duration;

/// `[defaults.schedule]` / `[agents.schedule]`: jobs that run at their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleConfig {
    pub missed: MissedSlots,
    /// Longest run of a job that names no time of its own (`job_timeout_secs`, 10 to 86,400).
    pub timeout: Duration,
}

/// `missed_slots`: what to do with slots that passed while nobody could run them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedSlots {
    /// Run the latest of them once, if it is not too old.
    #[default]
    RunOnce,
    Skip,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { missed: MissedSlots::RunOnce, timeout: Duration::from_secs(1500) }
    }
}
