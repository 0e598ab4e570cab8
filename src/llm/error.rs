//! What can go wrong with a model, as the rest of the program sees it.

use std::fmt;

use crate::error::{Fault, Kind};

/// Why one model gave no answer that can be used. The text is scrubbed of keys.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// `provider/model`.
    pub model: String,
    pub status: Option<u16>,
    /// What the provider or the transport says, one line, shortened.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.model)?;
        if let Some(status) = self.status {
            write!(formatter, " (HTTP {status})")?;
        }
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LlmError {
    #[error("the model call was stopped")]
    Cancelled,
    #[error("no such provider in the configuration: {0}")]
    NotConfigured(Failure),
    #[error("the provider refused the key or the account: {0}")]
    Unauthorized(Failure),
    #[error("rate limited: {0}")]
    RateLimited(Failure),
    /// It was not asked: it has failed a moment ago, or another call tries whether it is back.
    #[error("not asked, it rests after a failure: {0}")]
    Resting(Failure),
    /// It was not asked: a ceiling leaves no room for what the call may come to.
    #[error("over the budget: {0}")]
    OverBudget(Failure),
    #[error("the provider is overloaded or broken: {0}")]
    Overloaded(Failure),
    #[error("the provider cannot be reached: {0}")]
    Unreachable(Failure),
    #[error("the provider does not know the model: {0}")]
    UnknownModel(Failure),
    #[error("the provider rejected the request: {0}")]
    Rejected(Failure),
    /// The caller can shorten its history and call again.
    #[error("the request is longer than the model's window: {0}")]
    TooLong(Failure),
    /// The provider or the model objects to the content.
    #[error("the content was filtered: {0}")]
    Filtered(Failure),
    /// The output budget was used up before an answer, or within a tool call.
    #[error("the answer was cut off at the output limit: {0}")]
    CutShort(Failure),
    /// The answer stopped before its end; what had arrived is thrown away.
    #[error("the answer broke off: {0}")]
    BrokenOff(Failure),
    #[error("the answer is empty: {0}")]
    Empty(Failure),
    #[error("the answer cannot be read: {0}")]
    Malformed(Failure),
}

impl LlmError {
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Cancelled => None,
            Self::NotConfigured(failure)
            | Self::Unauthorized(failure)
            | Self::RateLimited(failure)
            | Self::Resting(failure)
            | Self::OverBudget(failure)
            | Self::Overloaded(failure)
            | Self::Unreachable(failure)
            | Self::UnknownModel(failure)
            | Self::Rejected(failure)
            | Self::TooLong(failure)
            | Self::Filtered(failure)
            | Self::CutShort(failure)
            | Self::BrokenOff(failure)
            | Self::Empty(failure)
            | Self::Malformed(failure) => Some(failure),
        }
    }

    /// The same model may answer the same request the next time.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        matches!(
            self,
            Self::RateLimited(_)
                | Self::Overloaded(_)
                | Self::Unreachable(_)
                | Self::BrokenOff(_)
                | Self::Empty(_)
                | Self::Malformed(_)
        )
    }

    /// It may be gone by itself the next time.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.kind(), Kind::Transient | Kind::RateLimited | Kind::Budget)
    }

    /// The fault lies in the request, so that an answer from the offline responder would hide what
    /// the caller has to do about it.
    pub(super) fn is_for_the_caller(&self) -> bool {
        matches!(self, Self::TooLong(_) | Self::Filtered(_))
    }
}

impl Fault for LlmError {
    fn kind(&self) -> Kind {
        match self {
            Self::Cancelled => Kind::Cancelled,
            Self::OverBudget(_) => Kind::Budget,
            Self::Unauthorized(_) => Kind::Auth,
            Self::RateLimited(_) => Kind::RateLimited,
            Self::NotConfigured(_) | Self::UnknownModel(_) => Kind::NotFound,
            Self::Rejected(_) | Self::TooLong(_) | Self::Filtered(_) | Self::CutShort(_) => Kind::Invalid,
            Self::Resting(_)
            | Self::Overloaded(_)
            | Self::Unreachable(_)
            | Self::BrokenOff(_)
            | Self::Empty(_)
            | Self::Malformed(_) => Kind::Transient,
        }
    }

    fn hint(&self) -> Option<&str> {
        Some(match self {
            Self::NotConfigured(_) => "add a section [llm.provider.<id>], or correct [defaults.routing]",
            Self::Unauthorized(_) => "check the provider's api_key and the state of the account",
            Self::RateLimited(_) | Self::Resting(_) => {
                "the model rests for a while; a fallback in [defaults.routing] bridges that"
            }
            Self::Unreachable(_) => "check the network and the provider's base_url",
            Self::UnknownModel(_) => {
                "check the model's name in [defaults.routing] and the provider's base_url"
            }
            Self::OverBudget(_) => "spacebot usage shows what is spent; the ceilings stand in [budget]",
            Self::TooLong(_) => "set context_window to the model's real window",
            _ => return None,
        })
    }
}
