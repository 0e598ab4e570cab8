//! A model inside the test process: Rig sees a model like any other, a closure decides what it says.

#![allow(dead_code, unreachable_pub)] // every test file uses a part of this

use std::sync::Arc;

use rig_core::completion::options::{Mapping, OptionFields, OptionMap};
use rig_core::completion::{Accepts, CompletionRequest, FinishReason, ReplayTarget, Usage};
use rig_core::driver::{Exchange, Opened, Opening, Transport};
use rig_core::error::{EncodeError, ProviderError};
use rig_core::message::{Api, CallId, ToolName};
use rig_core::operation::{Block, Completion, Finish};
use rig_core::wire::document::{Reassemble, Serves};
use rig_core::wire::{Decoder, Descriptor, Flow, Mode, Out, Wire, WireEvent};
use rig_core::{DynModel, Model};
use serde_json::Value;

/// One piece of a reply.
#[derive(Debug, Clone)]
pub enum Say {
    Text(String),
    /// Id, tool, raw arguments.
    Call(String, String, String),
    /// The tokens that the provider reports, of input and of output; otherwise one of each.
    Took(Option<u64>, Option<u64>),
    /// Nothing comes behind this.
    BreaksOff,
}

type Decide = Arc<dyn Fn(&CompletionRequest) -> Result<Vec<Say>, ProviderError> + Send + Sync>;

/// A model that says what `decide` returns; an error is one that nobody can read.
pub fn local_model(
    decide: impl Fn(&CompletionRequest) -> Result<Vec<Say>, String> + Send + Sync + 'static,
) -> DynModel<Completion> {
    faulty_model(move |request| decide(request).map_err(ProviderError::Response))
}

/// The same with errors of any kind.
pub fn faulty_model(
    decide: impl Fn(&CompletionRequest) -> Result<Vec<Say>, ProviderError> + Send + Sync + 'static,
) -> DynModel<Completion> {
    Model::new(Local, Decided(Arc::new(decide))).erase()
}

/// A model that answers with the text that `answer` returns, or fails with it.
pub fn stand_in(
    answer: impl Fn(&CompletionRequest) -> Result<String, String> + Send + Sync + 'static,
) -> DynModel<Completion> {
    local_model(move |request| answer(request).map(|text| vec![Say::Text(text)]))
}

#[derive(Debug, Clone, Copy)]
struct Local;

#[derive(Clone)]
struct Decided(Decide);

#[derive(Debug, Clone)]
enum Frame {
    Say(Say),
    End(FinishReason, Usage),
}

impl Transport<Local> for Decided {
    fn send(&self, request: CompletionRequest, _exchange: Exchange) -> Opening<Frame> {
        match (self.0)(&request) {
            Ok(said) => {
                let calls = said.iter().any(|say| matches!(say, Say::Call(..)));
                let reason = if calls { FinishReason::ToolCalls } else { FinishReason::Stop };
                let took = said.iter().rev().find_map(|say| match say {
                    Say::Took(input, output) => Some((*input, *output)),
                    _ => None,
                });
                let (input_tokens, output_tokens) = took.unwrap_or((Some(1), Some(1)));
                let mut usage = Usage::new();
                (usage.input_tokens, usage.output_tokens) = (input_tokens, output_tokens);
                let frames = said.into_iter().map(|say| match say {
                    Say::BreaksOff => Err(ProviderError::Truncated),
                    say => Ok(Frame::Say(say)),
                });
                let frames = frames.chain([Ok(Frame::End(reason, usage))]);
                Opening::ready(Opened::new(futures::stream::iter(frames.collect::<Vec<_>>())))
            }
            Err(error) => Opening::ready(Opened::failed(error)),
        }
    }
}

struct FrameDecoder;

impl<'id> Decoder<'id, Completion, Frame> for FrameDecoder {
    type Event = Frame;

    fn classify(&self, frame: Frame) -> WireEvent<Frame> {
        WireEvent::Known(frame)
    }

    fn decode(&mut self, frame: Frame, mut out: Out<'id, Completion>) -> Result<Flow, ProviderError> {
        match frame {
            Frame::Say(Say::Text(text)) => drop(out.run(Block::Text, &text)?),
            Frame::Say(Say::Call(id, tool, arguments)) => {
                out.end_run()?;
                let name = ToolName::new(tool).map_err(|error| ProviderError::Response(error.to_string()))?;
                let index = out.fresh_index();
                out.whole(index, Block::Call { id: CallId::from_wire(id), name }, Value::Null, &arguments)?;
            }
            Frame::Say(Say::Took(..) | Say::BreaksOff) => {}
            Frame::End(reason, usage) => {
                out.end_run()?;
                return Ok(out.end(Finish { usage, reason: Some(reason), ..Finish::default() }));
            }
        }
        Ok(Flow::More)
    }
}

/// There is no provider's document behind the answer.
#[derive(Default)]
struct NoDocument;

impl Serves<Completion> for NoDocument {}

impl Reassemble<Frame> for NoDocument {
    fn absorb(&mut self, _: &Frame) {}

    fn finish(self) -> Value {
        Value::Null
    }
}

impl Wire for Local {
    type Op = Completion;
    type Payload = CompletionRequest;
    type Frame = Frame;
    type Decoder<'id> = FrameDecoder;
    type Reassembler = NoDocument;

    fn describe(&self) -> Descriptor<'_> {
        Descriptor::new("local").model("local").replay(self)
    }

    fn encode(&self, request: CompletionRequest, _mode: Mode) -> Result<CompletionRequest, EncodeError> {
        Ok(request)
    }

    fn decoder<'id>(&self) -> Self::Decoder<'id> {
        FrameDecoder
    }
}

impl ReplayTarget for Local {
    fn api(&self) -> Api {
        Api::from_static("spacebot.test")
    }

    fn provider(&self) -> &str {
        "local"
    }

    fn model(&self) -> &str {
        "local"
    }

    fn accepts(&self, _model: &str) -> Accepts {
        Accepts::ALL
    }

    fn map_options(&self, _request: &CompletionRequest, fields: OptionFields<'_>) -> OptionMap {
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
