//! `[defaults.routing]` `<process>_thinking_effort`: how much a model thinks before it answers.

use super::section::Section;
use crate::id::ProcessKind;

/// From nothing to all that the model can do; a model that lacks a step is asked without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThinkingEffort {
    /// What the provider does by itself.
    #[default]
    Auto,
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl ThinkingEffort {
    /// Every step with its name in the config.
    pub const ALL: [(&'static str, Self); 8] = [
        ("auto", Self::Auto),
        ("none", Self::None),
        ("minimal", Self::Minimal),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("xhigh", Self::XHigh),
        ("max", Self::Max),
    ];
}

/// One for each process that has a model of its own in the routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThinkingConfig {
    pub channel: ThinkingEffort,
    pub branch: ThinkingEffort,
    pub worker: ThinkingEffort,
    pub compactor: ThinkingEffort,
    pub cortex: ThinkingEffort,
}

impl ThinkingConfig {
    pub fn of(&self, kind: ProcessKind) -> ThinkingEffort {
        match kind {
            ProcessKind::Channel => self.channel,
            ProcessKind::Branch | ProcessKind::Ingestion => self.branch,
            ProcessKind::Worker | ProcessKind::Delegation => self.worker,
            ProcessKind::Compactor => self.compactor,
            ProcessKind::Cortex => self.cortex,
        }
    }

    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let effort = |key, base| section.choice(key, &ThinkingEffort::ALL).unwrap_or(base);
        Self {
            channel: effort("channel_thinking_effort", base.channel),
            branch: effort("branch_thinking_effort", base.branch),
            worker: effort("worker_thinking_effort", base.worker),
            compactor: effort("compactor_thinking_effort", base.compactor),
            cortex: effort("cortex_thinking_effort", base.cortex),
        }
    }

    pub(super) fn write(&self, out: &mut String) -> std::fmt::Result {
        use std::fmt::Write;
        let all = [
            ("channel", self.channel),
            ("branch", self.branch),
            ("worker", self.worker),
            ("compactor", self.compactor),
            ("cortex", self.cortex),
        ];
        all.iter().try_for_each(|(process, effort)| {
            let name = ThinkingEffort::ALL.iter().find(|(_, one)| one == effort).map_or("", |(name, _)| name);
            writeln!(out, "{process}_thinking_effort = {name:?}")
        })
    }
}
