//! `[defaults.skills]` and `[agents.skills]`: folders with instructions for kinds of work.

use std::fmt::Write;

use super::section::Section;

/// `[agents.skills]` / `[defaults.skills]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkillsConfig {
    /// Those in the workspace are offered too. Workers write there, so that this is not the default.
    pub workspace: bool,
}

impl SkillsConfig {
    /// Resolved over `base`.
    pub(super) fn read(section: &Section<'_, '_>, base: &Self) -> Self {
        let config = Self { workspace: section.switch("workspace").unwrap_or(base.workspace) };
        section.finish();
        config
    }

    pub(super) fn write(self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "[agents.skills]\nworkspace = {}", self.workspace)
    }
}
