//! One request to one model, from the first byte to the whole answer: the place where Rig's futures
//! are driven, on the calling thread.

use futures::StreamExt;
use pollster::block_on;
use rig_core::DynModel;
use rig_core::completion::{CompletionRequest, CompletionResponse};
use rig_core::error::ProviderError;
use rig_core::operation::Completion;
use rig_core::streaming::{Item, StreamEvent};

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

/// The answer as it is written; `on_delta` gets its text piece by piece. An answer that breaks off is
/// an error, never a shorter answer.
pub(super) fn streamed(
    model: &DynModel<Completion>,
    request: CompletionRequest,
    cancel: &Cancel,
    on_delta: &mut dyn FnMut(&str),
) -> Result<CompletionResponse, Broken> {
    let mut stream = model.stream(request)?;
    block_on(async {
        let mut begun = false;
        while let Some(item) = stream.next().await {
            if cancel.is_cancelled() {
                return Err(Broken::Stopped);
            }
            match item {
                Ok(Item::Event(StreamEvent::Text { text, .. })) => on_delta(&text),
                Ok(_) => {}
                Err(error) => return Err(failed(error, begun)),
            }
            begun = true;
        }
        stream.finish().await.map_err(|error| failed(error, begun))
    })
}

/// The answer in one piece, which is then its only delta.
pub(super) fn whole(
    model: &DynModel<Completion>,
    request: CompletionRequest,
    on_delta: &mut dyn FnMut(&str),
) -> Result<CompletionResponse, Broken> {
    let response = block_on(model.call(request))?;
    let text = response.text();
    if !text.is_empty() {
        on_delta(&text);
    }
    Ok(response)
}
