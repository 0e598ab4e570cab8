//! `[defaults.loop_guard.<kind>]` and `[agents.loop_guard.<kind>]`: when a process that repeats itself is
//! warned, refused and ended.

use std::fmt::Write;

use super::section::Section;
use crate::id::ProcessKind;

/// For each kind of process; a compactor has the limits of a channel, an ingestion those of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopGuardConfig {
    pub channel: LoopLimits,
    pub branch: LoopLimits,
    pub worker: LoopLimits,
}

/// Counts are over the latest [`LoopLimits::HISTORY`] tool calls of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopLimits {
    /// The same call this often is warned about, then refused (2 to 30).
    pub warn_calls: usize,
    pub block_calls: usize,
    /// A call that looks like waiting for something may come this many times as often (1 to 10).
    pub poll_factor: usize,
    /// The same call has given the same result this often: warned about; every further one is refused (2 to 30).
    pub warn_results: usize,
    pub block_results: usize,
    /// Rounds of two or three calls in turn before the next one is refused (3 to 15).
    pub block_rounds: usize,
    /// Warnings about one call (0 to 30).
    pub max_warnings: usize,
    /// Refused calls that end the run (1 to 30).
    pub stop_blocked: usize,
}

impl LoopLimits {
    /// Calls that are remembered.
    pub const HISTORY: usize = 30;

    /// In the order of the fields; [`LoopLimits::from_numbers`] makes them limits again.
    pub fn to_numbers(self) -> [usize; 8] {
        let Self { warn_calls, block_calls, poll_factor, warn_results, block_results, .. } = self;
        let Self { block_rounds, max_warnings, stop_blocked, .. } = self;
        [
            warn_calls,
            block_calls,
            poll_factor,
            warn_results,
            block_results,
            block_rounds,
            max_warnings,
            stop_blocked,
        ]
    }

    pub fn from_numbers(numbers: [usize; 8]) -> Self {
        let [warn_calls, block_calls, poll_factor, warn_results, block_results, block_rounds, ..] = numbers;
        let [.., max_warnings, stop_blocked] = numbers;
        Self {
            warn_calls,
            block_calls,
            poll_factor,
            warn_results,
            block_results,
            block_rounds,
            max_warnings,
            stop_blocked,
        }
    }
}

impl Default for LoopGuardConfig {
    fn default() -> Self {
        let worker = LoopLimits {
            warn_calls: 4,
            block_calls: 7,
            poll_factor: 3,
            warn_results: 3,
            block_results: 4,
            block_rounds: 4,
            max_warnings: 3,
            stop_blocked: 3,
        };
        let branch = LoopLimits {
            warn_calls: 3,
            block_calls: 5,
            poll_factor: 2,
            warn_results: 2,
            block_results: 3,
            block_rounds: 3,
            max_warnings: 2,
            stop_blocked: 3,
        };
        Self { channel: LoopLimits { warn_calls: 2, block_calls: 4, ..branch }, branch, worker }
    }
}

impl LoopGuardConfig {
    pub fn of(&self, kind: ProcessKind) -> LoopLimits {
        match kind {
            ProcessKind::Channel | ProcessKind::Compactor => self.channel,
            ProcessKind::Branch | ProcessKind::Ingestion | ProcessKind::Cortex => self.branch,
            ProcessKind::Worker | ProcessKind::Delegation => self.worker,
        }
    }

    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let config = Self {
            channel: limits(&section.table("channel"), base.channel),
            branch: limits(&section.table("branch"), base.branch),
            worker: limits(&section.table("worker"), base.worker),
        };
        section.finish();
        config
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        for (name, limits) in [("channel", self.channel), ("branch", self.branch), ("worker", self.worker)] {
            writeln!(out, "[agents.loop_guard.{name}]")?;
            let LoopLimits { warn_calls, block_calls, poll_factor, .. } = limits;
            let LoopLimits { warn_results, block_results, block_rounds, .. } = limits;
            let LoopLimits { max_warnings, stop_blocked, .. } = limits;
            writeln!(out, "warn_calls = {warn_calls}\nblock_calls = {block_calls}")?;
            writeln!(out, "poll_factor = {poll_factor}\nwarn_results = {warn_results}")?;
            writeln!(out, "block_results = {block_results}\nblock_rounds = {block_rounds}")?;
            writeln!(out, "max_warnings = {max_warnings}\nstop_blocked = {stop_blocked}")?;
        }
        Ok(())
    }
}

fn limits(section: &Section<'_, '_>, base: LoopLimits) -> LoopLimits {
    let count = |key, least, most, base: usize| {
        section.number(key, least, most).and_then(|number| usize::try_from(number).ok()).unwrap_or(base)
    };
    let limits = LoopLimits {
        warn_calls: count("warn_calls", 2, 30, base.warn_calls),
        block_calls: count("block_calls", 2, 30, base.block_calls),
        poll_factor: count("poll_factor", 1, 10, base.poll_factor),
        warn_results: count("warn_results", 2, 30, base.warn_results),
        block_results: count("block_results", 2, 30, base.block_results),
        block_rounds: count("block_rounds", 3, 15, base.block_rounds),
        max_warnings: count("max_warnings", 0, 30, base.max_warnings),
        stop_blocked: count("stop_blocked", 1, 30, base.stop_blocked),
    };
    section.finish();
    limits
}
