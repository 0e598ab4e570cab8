//! What one request may come to, for the meter that is asked before it leaves, and what came of it.

use std::io::{self, Write};
use std::sync::Arc;

use rig_core::completion::{CompletionRequest, CompletionResponse, Message};
use rig_core::error::ProviderError;
use rig_core::message::{ToolResultContent, UserContent};

use super::attempt::Broken;
use super::classify::{Reporter, TOKENS_MAX, transport_error};
use super::error::LlmError;
use super::tokens;
use crate::billing::{Meter, Outcome, Payer, Permit, Refused, Tokens, Wanted};
use crate::text::CHARACTERS_PER_TOKEN;

/// Tokens that a provider may put around a request: marks of roles, and its own words about tools, which are some
/// hundred.
const OWN_TOKENS_MOST: u64 = 2_000;
/// Tokens of one picture: the dearest that a provider documents takes 48,000.
const IMAGE_TOKENS_MOST: u64 = 50_000;
/// Tokens of one document, of which a few bytes can unfold to many: the largest windows end it.
const PART_TOKENS_MOST: u64 = 1_000_000;
/// No tokenizer puts so many characters into one token, over a whole request.
const CHARACTERS_PER_TOKEN_MOST: usize = 16;

/// On whose account the calls of one process go.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) meter: Option<Arc<dyn Meter>>,
    pub(super) payer: Payer,
}

impl Account {
    /// Leave to send this request to this model; puts the limit of output into it that was reckoned with.
    pub(super) fn authorise(&self, model: &str, request: &mut CompletionRequest) -> Result<Paid, Refused> {
        let Some(meter) = &self.meter else { return Ok(Paid(None)) };
        let least = tokens::of_request(request) * CHARACTERS_PER_TOKEN / CHARACTERS_PER_TOKEN_MOST;
        let permit = meter.authorise(&Wanted {
            payer: &self.payer,
            model,
            input_most: input_most(request),
            input_least: u64::try_from(least).unwrap_or(u64::MAX),
            output_most: request.max_tokens,
        })?;
        request.max_tokens = permit.output_most().or(request.max_tokens);
        Ok(Paid(Some(permit)))
    }
}

/// Leave to send one request.
pub(super) struct Paid(Option<Box<dyn Permit>>);

impl Paid {
    /// `overheard` is what a call that came to no end had reported.
    pub(super) fn settle(
        self,
        answer: &Result<CompletionResponse, Broken>,
        reporter: &Reporter<'_>,
        overheard: impl FnOnce() -> Tokens,
    ) {
        let Some(permit) = self.0 else { return };
        permit.settle(match answer {
            Ok(response) => {
                Outcome::Billed { tokens: reported(response), output_least: output_least(response) }
            }
            Err(broken) if is_free(broken, reporter) => Outcome::Free,
            Err(_) => Outcome::Unknown(overheard()),
        });
    }
}

/// A token stands for a byte at least, so no tokenizer makes more of a text than it has bytes; and the request as
/// JSON holds every text of it, with more bytes around each than a provider puts tokens there.
fn input_most(request: &CompletionRequest) -> u64 {
    let mut bytes = Bytes(0);
    if serde_json::to_writer(&mut bytes, request).is_err() {
        return u64::MAX;
    }
    let documents = u64::try_from(request.documents.len()).unwrap_or(u64::MAX);
    let parts = request.chat_history.iter().flat_map(foreign_parts);
    let parts = parts.fold(documents.saturating_mul(PART_TOKENS_MOST), u64::saturating_add);
    bytes.0.saturating_add(OWN_TOKENS_MOST).saturating_add(parts)
}

/// The most that pictures, documents and whatever else is no text come to.
fn foreign_parts(message: &Message) -> impl Iterator<Item = u64> {
    let content = match message {
        Message::User { content } => content.as_slice(),
        _ => &[],
    };
    content.iter().map(|part| match part {
        UserContent::Text(_) => 0,
        UserContent::ToolResult(result) => {
            let image = |part: &ToolResultContent| match part {
                ToolResultContent::Image(_) => IMAGE_TOKENS_MOST,
                _ => 0,
            };
            result.content.iter().map(image).sum()
        }
        UserContent::Image(_) => IMAGE_TOKENS_MOST,
        _ => PART_TOKENS_MOST,
    })
}

/// Counts what is written.
struct Bytes(u64);

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the provider says, as far as that can be: the rest counts as not said, and so in full.
fn reported(response: &CompletionResponse) -> Tokens {
    let usage = &response.usage;
    let can_be = |count: Option<u64>| count.filter(|count| *count <= TOKENS_MAX);
    Tokens {
        input: can_be(usage.input_tokens),
        output: can_be(usage.output_tokens),
        cache_read: can_be(usage.cached_input_tokens),
        cache_write: can_be(usage.cache_creation_input_tokens),
        reasoning: can_be(usage.reasoning_tokens),
    }
}

fn output_least(response: &CompletionResponse) -> u64 {
    let calls = response.tool_calls().map(|call| call.function.arguments_value().to_string().chars().count());
    let characters = response.text().chars().count() + calls.sum::<usize>();
    u64::try_from(characters / CHARACTERS_PER_TOKEN_MOST).unwrap_or(u64::MAX)
}

/// Nothing can have been billed: the request never left, or its provider says that it did not work on it.
fn is_free(broken: &Broken, reporter: &Reporter<'_>) -> bool {
    let Broken::Failed { error, begun: false } = broken else { return false };
    if let Some(reply) = error.provider_response() {
        // A content filter has read the request, and some providers bill that.
        let filtered = matches!(reporter.classify(broken).error, LlmError::Filtered(_));
        return !filtered && reply.status.is_some_and(|status| says_not_done(status.as_u16()));
    }
    match transport_error(error) {
        Some(error) => !error.may_have_been_sent(),
        None => matches!(
            &**error,
            ProviderError::Url(_) | ProviderError::Request(_) | ProviderError::UnsupportedOption(_)
        ),
    }
}

/// Behind these statuses nobody has worked on the request. A time-out or a gateway (408, 502, 504) cannot tell.
fn says_not_done(status: u16) -> bool {
    matches!(status, 500 | 503 | 529)
        || (400..500).contains(&status) && !matches!(status, 408 | 409 | 425 | 499)
}

#[cfg(test)]
mod tests;
