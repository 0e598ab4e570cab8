//! What every error of this crate can say: its kind, for the code that decides what to do next,
//! and a hint, for the operator who reads the log. What the person in the chat reads is neither:
//! that is a plain sentence chosen by [`Kind`] from `prompts/en/notices.toml`.

/// The question a caller asks of an error: is it worth another try, and whose fault is it?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// May pass by itself: a network that went away, a busy file.
    Transient,
    /// The other side asked us to wait.
    RateLimited,
    /// A key, token or password was refused.
    Auth,
    /// The input is wrong and stays wrong.
    Invalid,
    /// What was asked for does not exist.
    NotFound,
    /// No space is left on the disk, or a named limit is reached.
    Full,
    /// The money or the tokens for it are used up.
    Budget,
    /// Somebody asked for the stop.
    Cancelled,
    /// A rule of ours was broken; nobody outside can help it.
    Bug,
}

impl Kind {
    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Kind::Transient | Kind::RateLimited | Kind::Full)
    }

    /// The key of the sentence for the chat user in `prompts/en/notices.toml`.
    pub fn notice(self) -> &'static str {
        match self {
            Kind::Transient => "transient",
            Kind::RateLimited => "rate_limited",
            Kind::Auth => "auth",
            Kind::Invalid => "invalid",
            Kind::NotFound => "not_found",
            Kind::Full => "full",
            Kind::Budget => "budget",
            Kind::Cancelled => "cancelled",
            Kind::Bug => "bug",
        }
    }
}

/// Implemented by each module's error enum.
pub trait Fault: std::error::Error {
    fn kind(&self) -> Kind;
    /// What the operator can do about it, if anything.
    fn hint(&self) -> Option<&str> {
        None
    }
}

/// One line for the log: the error, and the hint where there is one.
pub fn log_line(fault: &dyn Fault) -> String {
    match fault.hint() {
        Some(hint) => format!("{fault} (hint: {hint})"),
        None => fault.to_string(),
    }
}
