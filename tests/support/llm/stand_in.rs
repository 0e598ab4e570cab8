//! A model inside the process, for the place of the offline responder: Rig's loop sees a model like
//! any other, and no byte leaves the program.

use std::sync::Arc;

use rig_core::DynModel;
use rig_core::completion::options::{Mapping, OptionFields, OptionMap};
use rig_core::completion::{Accepts, CompletionRequest, FinishReason, ReplayTarget, Usage};
use rig_core::driver::{Exchange, Model, Opened, Opening, Transport};
use rig_core::error::{EncodeError, ProviderError};
use rig_core::message::Api;
use rig_core::operation::{Block, Completion, Finish};
use rig_core::wire::document::{Reassemble, Serves};
use rig_core::wire::{Decoder, Descriptor, Flow, Mode, Out, Wire, WireEvent};

type Answer = Arc<dyn Fn(&CompletionRequest) -> Result<String, String> + Send + Sync>;

/// A model that answers with the text that `answer` returns, or fails with it.
pub fn stand_in(
    answer: impl Fn(&CompletionRequest) -> Result<String, String> + Send + Sync + 'static,
) -> DynModel<Completion> {
    Model::new(Local, Line(Arc::new(answer))).erase()
}

#[derive(Clone, Debug)]
struct Local;

#[derive(Clone)]
struct Line(Answer);

impl Transport<Local> for Line {
    fn send(&self, request: CompletionRequest, _: Exchange) -> Opening<String> {
        Opening::ready(match (self.0)(&request) {
            Ok(text) => Opened::new(futures::stream::iter([Ok(text)])),
            Err(error) => Opened::failed(ProviderError::Response(error)),
        })
    }
}

struct TextDecoder;

impl<'id> Decoder<'id, Completion, String> for TextDecoder {
    type Event = String;

    fn classify(&self, frame: String) -> WireEvent<String> {
        WireEvent::Known(frame)
    }

    fn decode(&mut self, text: String, mut out: Out<'id, Completion>) -> Result<Flow, ProviderError> {
        out.run(Block::Text, &text)?;
        out.end_run()?;
        let usage = Usage::new().input_tokens(0).output_tokens(0);
        Ok(out.end(Finish { usage, reason: Some(FinishReason::Stop), ..Finish::default() }))
    }
}

/// There is no provider's document behind the answer.
#[derive(Default)]
struct NoDocument;

impl Serves<Completion> for NoDocument {}

impl Reassemble<String> for NoDocument {
    fn absorb(&mut self, _: &String) {}

    fn finish(self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Wire for Local {
    type Op = Completion;
    type Payload = CompletionRequest;
    type Frame = String;
    type Decoder<'id> = TextDecoder;
    type Reassembler = NoDocument;

    fn describe(&self) -> Descriptor<'_> {
        Descriptor::new("stand-in").model("stand-in").replay(self)
    }

    fn encode(&self, request: CompletionRequest, _: Mode) -> Result<CompletionRequest, EncodeError> {
        Ok(request)
    }

    fn decoder<'id>(&self) -> Self::Decoder<'id> {
        TextDecoder
    }
}

impl ReplayTarget for Local {
    fn api(&self) -> Api {
        Api::from_static("stand-in")
    }

    fn provider(&self) -> &str {
        "stand-in"
    }

    fn model(&self) -> &str {
        "stand-in"
    }

    fn accepts(&self, _: &str) -> Accepts {
        Accepts::ALL
    }

    fn map_options(&self, _: &CompletionRequest, fields: OptionFields<'_>) -> OptionMap {
        let skip = |is_set: bool| if is_set { Mapping::Omit("not a real model") } else { Mapping::Nothing };
        OptionMap {
            reasoning: skip(fields.reasoning.is_some()),
            cache: skip(fields.cache.is_some()),
            service_tier: skip(fields.service_tier.is_some()),
            verbosity: skip(fields.verbosity.is_some()),
            parallel_tool_calls: skip(fields.parallel_tool_calls.is_some()),
            top_p: skip(fields.top_p.is_some()),
            seed: skip(fields.seed.is_some()),
            stop: skip(!fields.stop.is_empty()),
        }
    }
}
