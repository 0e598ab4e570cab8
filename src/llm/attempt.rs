//! One request to one model, from the first byte to the whole answer: the place where Rig's futures
//! are driven, on the calling thread.

use futures::StreamExt;
use pollster::block_on;
use rig_core::DynModel;
use rig_core::completion::{CompletionRequest, CompletionResponse, OnUnsupported, Reasoning};
use rig_core::error::ProviderError;
use rig_core::http_client::Error as HttpError;
use rig_core::operation::Completion;
use rig_core::streaming::{Item, StreamEvent};

use super::delta::Delta;
use crate::http::transport::{BODY_BYTES_MAX, TransportError};
use crate::thread::Cancel;

/// Why no complete answer came.
pub(super) enum Broken {
    Stopped,
    Failed {
        error: Box<ProviderError>,
        /// The answer had begun to arrive.
        begun: bool,
    },
}

impl From<ProviderError> for Broken {
    fn from(error: ProviderError) -> Self {
        failed(error, false)
    }
}

fn failed(error: ProviderError, begun: bool) -> Broken {
    Broken::Failed { error: Box::new(error), begun }
}

/// What an event adds to the answer that is kept.
fn length(event: &StreamEvent) -> usize {
    match event {
        StreamEvent::Text { text, .. } | StreamEvent::Reasoning { text, .. } => text.len(),
        StreamEvent::Arguments { json, .. } => json.len(),
        StreamEvent::Start { .. } | StreamEvent::End { .. } => 0,
    }
}

/// A streamed answer has the same limit as a whole one.
fn too_long() -> ProviderError {
    HttpError::instance(TransportError::BodyTooLong(BODY_BYTES_MAX)).into()
}

/// The request for whichever model gets it: an option that this one lacks is left out, not an error.
pub(super) fn portable(request: &CompletionRequest, reasoning: Option<Reasoning>) -> CompletionRequest {
    let mut request = request.clone();
    request.options.reasoning = request.options.reasoning.or(reasoning);
    if !request.options.is_default() && request.options.on_unsupported.is_none() {
        request.options.on_unsupported = Some(OnUnsupported::Ignore);
    }
    request
}

/// The answer as it is written; `on_delta` gets it piece by piece. An answer that breaks off is
/// an error, never a shorter answer.
pub(super) fn streamed(
    model: &DynModel<Completion>,
    request: CompletionRequest,
    cancel: &Cancel,
    on_delta: &mut dyn FnMut(Delta<'_>),
) -> Result<CompletionResponse, Broken> {
    let mut stream = model.stream(request)?;
    block_on(async {
        let mut begun = false;
        let mut bytes_left = BODY_BYTES_MAX;
        while let Some(item) = stream.next().await {
            if cancel.is_cancelled() {
                return Err(Broken::Stopped);
            }
            let event = match item {
                Ok(Item::Event(event)) => event,
                Ok(Item::Unknown(_)) => continue,
                Err(error) => return Err(failed(error, begun)),
            };
            bytes_left = match bytes_left.checked_sub(length(&event)) {
                Some(left) => left,
                None => return Err(failed(too_long(), begun)),
            };
            if let Some(delta) = Delta::of(&event) {
                on_delta(delta);
            }
            begun = true;
        }
        stream.finish().await.map_err(|error| failed(error, begun))
    })
}

/// The answer in one piece, each part of which is then one delta.
pub(super) fn whole(
    model: &DynModel<Completion>,
    request: CompletionRequest,
    on_delta: &mut dyn FnMut(Delta<'_>),
) -> Result<CompletionResponse, Broken> {
    let response = block_on(model.call(request))?;
    let text = response.text();
    if !text.is_empty() {
        on_delta(Delta::Text(&text));
    }
    for (call, tool) in response.tool_calls().enumerate() {
        on_delta(Delta::Call { call, tool: tool.function.name.as_str() });
        on_delta(Delta::Arguments { call, json: &tool.function.arguments_value().to_string() });
        on_delta(Delta::Called { call });
    }
    Ok(response)
}
