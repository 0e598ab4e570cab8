//! A model that has failed: whether it is asked once more, and whether it rests.

use std::time::Duration;

use super::classify::Classified;
use super::error::LlmError;
use super::health::Rest;
use super::random_share;

/// Further tries of one model after the first.
pub const RETRIES_MAX: u32 = 3;
/// Of a model that was silent for as long as it may be, and has no other behind it: each try costs that time again.
const SILENT_RETRIES_MAX: u32 = 1;
/// A provider that wants us to wait longer is passed over and rests.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Share of a retry's wait that is random, so that conversations which failed together do not come
/// back together.
const JITTER: f64 = 0.1;

/// How long to wait for the next try, of which so many were made; the first wait is `delay`. None: no more tries.
pub(super) fn wait_before(
    retries: u32,
    failed: &Classified,
    is_last: bool,
    delay: Duration,
) -> Option<Duration> {
    let most = match failed.silent {
        true if is_last => SILENT_RETRIES_MAX,
        // The next model answers sooner.
        true => 0,
        false => RETRIES_MAX,
    };
    if retries >= most || !failed.error.is_worth_a_retry() {
        return None;
    }
    match (failed.retry_after, &failed.error) {
        (Some(wished), _) => Some(wished).filter(|wished| *wished <= RETRY_AFTER_MAX),
        // Without a time there is no telling; the next model answers sooner.
        (None, LlmError::RateLimited(_)) => None,
        (None, _) => Some((delay * 2_u32.pow(retries)).mul_f64(1.0 + JITTER * random_share())),
    }
}

/// Why the model rests after its last try.
pub(super) enum After {
    Rests(Rest),
    /// What is wrong with the request or the answer says nothing about the next one.
    Answered,
    /// Nobody can tell.
    Nothing,
}

impl After {
    pub(super) fn of(failed: &Classified, cooldown: Duration) -> Self {
        match &failed.error {
            LlmError::RateLimited(_) => Self::Rests(Rest::Wished(failed.retry_after.unwrap_or(cooldown))),
            LlmError::Overloaded(_)
            | LlmError::Unreachable(_)
            | LlmError::BrokenOff(_)
            | LlmError::Malformed(_) => Self::Rests(failed.retry_after.map_or(Rest::Lost, Rest::Wished)),
            LlmError::Unauthorized(_) | LlmError::UnknownModel(_) => Self::Rests(Rest::Refused),
            LlmError::TooLong(_) | LlmError::Filtered(_) | LlmError::CutShort(_) | LlmError::Empty(_) => {
                Self::Answered
            }
            _ => Self::Nothing,
        }
    }
}
