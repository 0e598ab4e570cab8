//! `worker_context` and `worker_log_mode`: what workers know, and what of their runs is written into files
//! that the operator can read.

/// Which workers leave a file in the folder `logs` of their agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerLogMode {
    /// Those that did not succeed, a file for each.
    #[default]
    ErrorsOnly,
    /// All, a file for each.
    AllSeparate,
    /// All, one behind the other in one file.
    AllCombined,
}

impl WorkerLogMode {
    /// Each with its name in the config.
    pub const ALL: [(&'static str, Self); 3] = [
        ("errors_only", Self::ErrorsOnly),
        ("all_separate", Self::AllSeparate),
        ("all_combined", Self::AllCombined),
    ];
}

/// What a worker knows of the conversation (`worker_context`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerContext {
    /// Its task and nothing else.
    #[default]
    None,
    /// The history as the turn saw it that asked for the worker.
    Fork,
}

impl WorkerContext {
    /// Each with its name in the config.
    pub const ALL: [(&'static str, Self); 2] = [("none", Self::None), ("fork", Self::Fork)];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => Self::ALL[0].0,
            Self::Fork => Self::ALL[1].0,
        }
    }
}
