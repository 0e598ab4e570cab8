//! What an error or an answer of Rig means for us. Decided by status, machine-readable codes and
//! finish reasons; the words of a message count in two documented cases only.

use std::time::Duration;

use rig_core::ProviderResponseError;
use rig_core::completion::{CompletionResponse, FinishReason, Usage};
use rig_core::error::ProviderError;
use rig_core::http_client::Error as HttpError;
use rig_core::message::{AssistantContent, StopReason};

use super::attempt::Broken;
use super::error::{Failure, LlmError};
use crate::clock::Timestamp;
use crate::error::log_line;
use crate::http::transport::TransportError;
use crate::secrets::Scrubber;
use crate::text::one_line;

/// Bytes of a provider's message that are kept; the rest repeats the request.
const DETAIL_BYTES_MAX: usize = 300;

const TOO_LONG: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "request_too_large",
    "model_context_window_exceeded",
    "string_above_max_length",
];
const FILTERED: &[&str] = &["content_filter", "content_policy_violation", "responsible_ai_policy_violation"];
/// A limit that no waiting lifts: the account is empty.
const NO_CREDIT: &[&str] = &["insufficient_quota", "billing_error", "billing_hard_limit_reached"];
const UNAUTHORIZED: &[&str] = &["authentication_error", "permission_error", "invalid_api_key"];
const RATE_LIMITED: &[&str] = &["rate_limit_error", "rate_limit_exceeded", "tokens", "requests"];
const UNKNOWN_MODEL: &[&str] = &["not_found_error", "model_not_found"];
const REJECTED: &[&str] = &["invalid_request_error", "BadRequestError"];
/// Anthropic reports a prompt beyond the window as an ordinary `invalid_request_error` with status
/// 400; only its message tells, and it begins like this.
const ANTHROPIC_TOO_LONG: &str = "prompt is too long";
/// Gemini does the same with `INVALID_ARGUMENT`.
const GEMINI_TOO_LONG: &str = "The input token count";
/// Gemini's word for a refused key, in the details of a status 400.
const GEMINI_KEY_REFUSED: &str = "API_KEY_INVALID";

/// More tokens than any call can have. A count beyond it is not believed, and so not known: whoever adds
/// counts up must neither overflow nor spend a year's budget on it.
pub(super) const TOKENS_MAX: u64 = 1 << 32;

/// An error, and how long its sender wants to be left alone.
#[derive(Debug)]
pub(super) struct Classified {
    pub(super) error: LlmError,
    pub(super) retry_after: Option<Duration>,
    /// The server answered a request for an event stream with something whole that may be an answer.
    pub(super) not_a_stream: bool,
    /// Nothing came for as long as the server may be silent.
    pub(super) silent: bool,
}

impl From<LlmError> for Classified {
    fn from(error: LlmError) -> Self {
        Self { error, retry_after: None, not_a_stream: false, silent: false }
    }
}

/// Who says it, and how it is made presentable.
pub(super) struct Reporter<'a> {
    pub(super) model: &'a str,
    pub(super) scrubber: &'a Scrubber,
    pub(super) now: Timestamp,
}

impl Reporter<'_> {
    pub(super) fn failure(&self, status: Option<u16>, detail: &str) -> Failure {
        // Cut after hiding: half a key is not recognised as one.
        let detail = one_line(&self.scrubber.scrub(detail), DETAIL_BYTES_MAX);
        Failure { model: self.model.to_owned(), status, detail }
    }

    pub(super) fn classify(&self, broken: &Broken) -> Classified {
        match broken {
            Broken::Stopped => LlmError::Cancelled.into(),
            Broken::Failed { error, begun } => {
                let mut classified = self.classify_error(error);
                if let (true, LlmError::Unreachable(failure)) = (begun, &classified.error) {
                    classified.error = LlmError::BrokenOff(failure.clone());
                }
                classified
            }
        }
    }

    fn classify_error(&self, error: &ProviderError) -> Classified {
        if let Some(reply) = error.provider_response() {
            return self.classify_reply(reply);
        }
        if let Some(error) = transport_error(error) {
            // Before it the server had not even taken the connection, and that is known soon.
            let silent = matches!(error, TransportError::TimedOut(_)) && error.may_have_been_sent();
            return Classified { silent, ..self.classify_transport(error).into() };
        }
        let failure = self.failure(None, &error.to_string());
        let mut not_a_stream = false;
        let error = match error {
            ProviderError::Http(error) => match &**error {
                HttpError::StreamEnded => LlmError::BrokenOff(failure),
                HttpError::InvalidContentType(kind) if is_json(kind) => {
                    not_a_stream = true;
                    LlmError::Malformed(failure)
                }
                // Whoever that was, it was not the provider.
                HttpError::InvalidContentType(_) => LlmError::Unreachable(failure),
                // The request itself is no HTTP, for instance a key with a line break.
                _ => LlmError::Rejected(failure),
            },
            ProviderError::Truncated => LlmError::BrokenOff(failure),
            ProviderError::Url(_) | ProviderError::Request(_) | ProviderError::UnsupportedOption(_) => {
                LlmError::Rejected(failure)
            }
            ProviderError::Provider(_) => LlmError::Overloaded(failure),
            _ => LlmError::Malformed(failure),
        };
        Classified { not_a_stream, ..error.into() }
    }

    pub(super) fn classify_transport(&self, error: &TransportError) -> LlmError {
        let failure = self.failure(None, &log_line(error));
        match error {
            TransportError::Stopped => LlmError::Cancelled,
            // The same megabytes would come again.
            TransportError::BodyTooLong(_)
            | TransportError::BadAddress(_)
            | TransportError::Tls(_)
            | TransportError::Handshake(_) => LlmError::Rejected(failure),
            TransportError::TimedOut(_)
            | TransportError::Protocol(_)
            | TransportError::Page
            | TransportError::Network(_)
            | TransportError::Unconnected(_) => LlmError::Unreachable(failure),
        }
    }

    pub(super) fn classify_reply(&self, reply: &ProviderResponseError) -> Classified {
        let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let places = ["/error/message", "/response/error/message", "/message", "/error"];
        let said = places.iter().find_map(|place| body.pointer(place)?.as_str());
        let message = said.unwrap_or(&reply.body);
        let status = error_status(reply, &body);
        let failure = self.failure(status, message);
        let codes = machine_codes(reply, &body);
        let has = |known: &[&str]| codes.iter().any(|code| known.contains(code));
        let says_too_long = status.is_none_or(|status| status == 400)
            && (message.starts_with(ANTHROPIC_TOO_LONG) || message.starts_with(GEMINI_TOO_LONG));
        let error = if reply.refusal || has(FILTERED) {
            LlmError::Filtered(failure)
        } else if has(TOO_LONG) || status == Some(413) || says_too_long {
            LlmError::TooLong(failure)
        } else if has(NO_CREDIT) || details(&body).any(|detail| detail["reason"] == GEMINI_KEY_REFUSED) {
            LlmError::Unauthorized(failure)
        } else {
            match status {
                Some(401..=403) => LlmError::Unauthorized(failure),
                Some(404) => LlmError::UnknownModel(failure),
                Some(429) => LlmError::RateLimited(failure),
                Some(408 | 409 | 425 | 500..=599) => LlmError::Overloaded(failure),
                Some(_) => LlmError::Rejected(failure),
                // An error inside an answer that had begun well; without a code it is the server's.
                None if has(UNAUTHORIZED) => LlmError::Unauthorized(failure),
                None if has(RATE_LIMITED) => LlmError::RateLimited(failure),
                None if has(UNKNOWN_MODEL) => LlmError::UnknownModel(failure),
                None if has(REJECTED) => LlmError::Rejected(failure),
                None => LlmError::Overloaded(failure),
            }
        };
        let retry_after = retry_after(reply, self.now).or_else(|| retry_delay(&body));
        Classified { retry_after, ..error.into() }
    }

    /// An answer that the agent loop can use, or the reason why it cannot.
    pub(super) fn check(&self, mut response: CompletionResponse) -> Result<CompletionResponse, LlmError> {
        believe(&mut response.usage);
        let calls = || response.tool_calls();
        let has_text = !response.text().trim().is_empty();
        let has_call = calls().next().is_some();
        let cut = response.finish_reason() == Some(FinishReason::Length);
        match response.stop() {
            StopReason::Error(reason) if response.finish_reason() == Some(FinishReason::ContentFilter) => {
                Err(LlmError::Filtered(self.failure(None, &reason)))
            }
            StopReason::Error(reason) | StopReason::Aborted(reason) => {
                Err(LlmError::BrokenOff(self.failure(None, &reason)))
            }
            _ if cut && calls().any(|call| call.function.invalid_arguments.is_some()) => {
                Err(LlmError::CutShort(self.failure(None, "within a tool call")))
            }
            _ if has_text || has_call => Ok(response),
            _ if cut => Err(LlmError::CutShort(self.failure(None, "before any answer"))),
            _ if response.choice.iter().any(|part| matches!(part, AssistantContent::Image(_))) => {
                Ok(response)
            }
            _ => Err(LlmError::Empty(self.failure(None, ""))),
        }
    }
}

fn believe(usage: &mut Usage) {
    let counts = [
        &mut usage.input_tokens,
        &mut usage.output_tokens,
        &mut usage.total_tokens,
        &mut usage.cached_input_tokens,
        &mut usage.cache_creation_input_tokens,
        &mut usage.tool_use_prompt_tokens,
        &mut usage.reasoning_tokens,
    ];
    for count in counts {
        *count = count.filter(|tokens| *tokens <= TOKENS_MAX);
    }
}

/// The error of our own transport, where it is one.
pub(super) fn transport_error(error: &ProviderError) -> Option<&TransportError> {
    match error {
        ProviderError::Http(error) => match &**error {
            HttpError::Instance(error) => error.downcast_ref(),
            _ => None,
        },
        _ => None,
    }
}

/// The status of the failure: HTTP's own, or the number that a gateway puts into a body it sends with
/// status 200.
fn error_status(reply: &ProviderResponseError, body: &serde_json::Value) -> Option<u16> {
    let http = reply.status.filter(|status| !status.is_success()).map(|status| status.as_u16());
    http.or_else(|| {
        let code = body.pointer("/error/code")?.as_u64()?;
        u16::try_from(code).ok().filter(|code| (400..600).contains(code))
    })
}

fn is_json(kind: &http::HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json")
}

fn machine_codes<'a>(reply: &'a ProviderResponseError, body: &'a serde_json::Value) -> Vec<&'a str> {
    let fields = ["/error/code", "/error/type", "/error/status", "/response/error/code", "/code", "/type"];
    let in_body = fields.iter().filter_map(|field| body.pointer(field)?.as_str());
    reply.code.as_deref().into_iter().chain(in_body).collect()
}

/// What Google says about an error beyond its status.
fn details(body: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    body.pointer("/error/details").and_then(|details| details.as_array()).into_iter().flatten()
}

/// Gemini's place for it is the body: `"retryDelay": "34.5s"`.
fn retry_delay(body: &serde_json::Value) -> Option<Duration> {
    let said = details(body).find_map(|detail| detail["retryDelay"].as_str())?;
    Duration::try_from_secs_f64(said.strip_suffix('s')?.parse().ok()?).ok()
}

/// `Retry-After` in seconds or as a date, and the milliseconds that OpenAI and Azure add.
fn retry_after(reply: &ProviderResponseError, now: Timestamp) -> Option<Duration> {
    let headers = reply.headers.as_ref()?;
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.trim().parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let value = text("retry-after")?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    Some(Timestamp(date.timestamp().as_millisecond()).since(now))
}

#[cfg(test)]
mod tests;
