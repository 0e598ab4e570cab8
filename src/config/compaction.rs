//! `[defaults.compaction]` / `[agents.compaction]`: when a conversation's window is made smaller.

/// Each threshold is a share of the window, from 0.1 to 1, and none is below the one before it.
#[derive(Debug, Clone, PartialEq)]
pub struct CompactionConfig {
    /// The oldest 30 % are summarised (`background_threshold`).
    pub background: f64,
    /// The oldest half is summarised (`aggressive_threshold`).
    pub aggressive: f64,
    /// The oldest half leaves at once, without a model (`emergency_threshold`).
    pub emergency: f64,
    /// Memories are taken from what has left the window.
    pub extract_memories: bool,
}

impl CompactionConfig {
    /// The least threshold that makes sense: below it the summaries would be longer than the window.
    pub const LEAST: f64 = 0.1;
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self { background: 0.80, aggressive: 0.85, emergency: 0.95, extract_memories: true }
    }
}
