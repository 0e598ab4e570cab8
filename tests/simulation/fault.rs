//! What a model does instead of answering, and what is expected to come of that.

#![allow(unreachable_pub)] // one of the parts of one test

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use rig_core::error::ProviderError;

use crate::breaker::Said;
use crate::local_model::Say;
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its answer cannot be read.
    Unreadable,
    /// Its answer ends in the middle of a word.
    BreaksOff,
    /// This status instead of an answer, and for how long it wants to be left alone.
    Status(u16, Option<Duration>),
}

impl Fault {
    /// One that stays until the operator or the provider has done something, or until time has passed.
    pub fn lasting(random: &mut Random) -> Self {
        // Longer than anybody waits within a call.
        let wish = Duration::from_secs(61 + random.below(3_600));
        match random.below(10) {
            0..=3 => Self::Unreadable,
            4 => Self::Status(401, None),
            5 => Self::Status(404, None),
            6 => Self::Status(503, Some(wish)),
            7 => Self::Status(429, None),
            _ => Self::Status(429, Some(wish)),
        }
    }

    /// One that hits one request.
    pub fn passing(random: &mut Random) -> Self {
        // Who asks waits for it by the clock of this machine.
        let wish = Duration::from_millis(1 + random.below(2));
        match random.below(10) {
            0..=3 => Self::Unreadable,
            4 => Self::BreaksOff,
            5 => Self::Status(429, Some(wish)),
            6 => Self::Status(500, None),
            7 => Self::Status(503, Some(wish)),
            8 => Self::Status(413, None),
            _ => Self::Status(400, None),
        }
    }

    pub fn happens(self) -> Result<Vec<Say>, ProviderError> {
        let (status, wish) = match self {
            Self::Unreadable => {
                return Err(ProviderError::Response("the simulated provider failed".to_owned()));
            }
            Self::BreaksOff => return Ok(vec![Say::Text("half an answ".to_owned()), Say::BreaksOff]),
            Self::Status(status, wish) => (status, wish),
        };
        let mut headers = HeaderMap::new();
        if let Some(wish) = wish {
            let (name, value) = match wish.subsec_millis() {
                0 => ("retry-after", wish.as_secs()),
                milliseconds => ("retry-after-ms", u64::from(milliseconds)),
            };
            headers.insert(name, value.into());
        }
        let status = StatusCode::from_u16(status).expect("a status");
        Err(ProviderError::from_http_response(status, "{}").with_response_headers(Some(headers)))
    }

    /// What it says about the model.
    pub fn said(self) -> Said {
        match self {
            Self::Unreadable | Self::BreaksOff => Said::Lost,
            Self::Status(400, _) => Said::Odd,
            // It has read the request.
            Self::Status(413, _) => Said::Well,
            Self::Status(401 | 404, _) => Said::Refused,
            Self::Status(429, None) => Said::Limited,
            Self::Status(_, None) => Said::Lost,
            Self::Status(_, Some(wish)) => Said::Wants(wish),
        }
    }
}
