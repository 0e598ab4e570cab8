//! The responder as Rig sees it: a provider whose request goes nowhere and whose reply is a handful
//! of frames, the same for unary and streamed calls.

use rig_core::completion::options::{Mapping, OptionFields, OptionMap};
use rig_core::completion::{Accepts, CompletionRequest, Cost, FinishReason, ReplayTarget, Usage};
use rig_core::driver::{Exchange, Opened, Opening, Transport};
use rig_core::error::{EncodeError, ProviderError};
use rig_core::message::{Api, CallId, ToolName};
use rig_core::operation::{Block, Completion, Finish};
use rig_core::wire::document::{Reassemble, Serves};
use rig_core::wire::{Decoder, Descriptor, Flow, Mode, Out, Wire, WireEvent};
use serde_json::{Value, json};

use super::answer::Answer;
use super::request::{CALL_PREFIX, Request, tokens_of};
use crate::clock::SharedClock;

pub(super) const PROVIDER: &str = "offline";
pub(super) const MODEL: &str = "responder";

/// One piece of a reply.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    Text(String),
    Call { id: String, tool: &'static str, arguments: String },
    End { usage: Usage, reason: FinishReason },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct OfflineWire;

impl ReplayTarget for OfflineWire {
    fn api(&self) -> Api {
        Api::from_static("spacebot.offline")
    }

    fn provider(&self) -> &str {
        PROVIDER
    }

    fn model(&self) -> &str {
        MODEL
    }

    fn accepts(&self, _model: &str) -> Accepts {
        Accepts::ALL
    }

    /// Rules neither reason nor sample, so every option is met by leaving it out. This keeps a request
    /// that was made for another model from failing here, at the end of the fallback chain.
    fn map_options(&self, _request: &CompletionRequest, fields: OptionFields<'_>) -> OptionMap {
        let OptionFields {
            reasoning,
            cache,
            service_tier,
            verbosity,
            parallel_tool_calls,
            top_p,
            seed,
            stop,
        } = fields;
        OptionMap {
            reasoning: Mapping::of(reasoning, without_effect),
            cache: Mapping::of(cache, without_effect),
            service_tier: Mapping::of(service_tier, without_effect),
            verbosity: Mapping::of(verbosity, without_effect),
            parallel_tool_calls: Mapping::of(parallel_tool_calls, without_effect),
            top_p: Mapping::of(top_p, without_effect),
            seed: Mapping::of(seed, without_effect),
            stop: Mapping::of_stop(stop, |stop| without_effect(stop)),
        }
    }
}

fn without_effect<T>(_value: T) -> Mapping {
    Mapping::Omit("the responder is made of rules")
}

impl Wire for OfflineWire {
    type Op = Completion;
    type Payload = CompletionRequest;
    type Frame = Frame;
    type Decoder<'id> = FrameDecoder;
    type Reassembler = Document;

    fn describe(&self) -> Descriptor<'_> {
        Descriptor::new(PROVIDER).model(MODEL).replay(self)
    }

    fn encode(&self, request: CompletionRequest, _mode: Mode) -> Result<CompletionRequest, EncodeError> {
        Ok(request)
    }

    fn decoder<'id>(&self) -> Self::Decoder<'id> {
        FrameDecoder
    }
}

pub(super) struct FrameDecoder;

impl<'id> Decoder<'id, Completion, Frame> for FrameDecoder {
    type Event = Frame;

    fn classify(&self, frame: Frame) -> WireEvent<Frame> {
        WireEvent::Known(frame)
    }

    fn decode(&mut self, frame: Frame, mut out: Out<'id, Completion>) -> Result<Flow, ProviderError> {
        match frame {
            Frame::Text(text) => {
                out.run(Block::Text, &text)?;
            }
            Frame::Call { id, tool, arguments } => {
                out.end_run()?;
                let name = ToolName::new(tool).map_err(|error| ProviderError::Response(error.to_string()))?;
                let index = out.fresh_index();
                out.whole(index, Block::Call { id: CallId::from_wire(id), name }, Value::Null, &arguments)?;
            }
            Frame::End { usage, reason } => {
                out.end_run()?;
                return Ok(out.end(Finish {
                    usage,
                    reason: Some(reason),
                    model: Some(MODEL.to_owned()),
                    ..Finish::default()
                }));
            }
        }
        Ok(Flow::More)
    }
}

/// There is no provider document beside what was said.
#[derive(Default)]
pub(super) struct Document;

impl Serves<Completion> for Document {}

impl Reassemble<Frame> for Document {
    fn absorb(&mut self, _frame: &Frame) {}

    fn finish(self) -> Value {
        Value::Null
    }
}

/// "Sends" a request by answering it on the spot.
#[derive(Clone)]
pub(super) struct Responder {
    pub(super) clock: SharedClock,
}

impl Transport<OfflineWire> for Responder {
    fn send(&self, request: CompletionRequest, _exchange: Exchange) -> Opening<Frame> {
        match super::answer(&request, self.clock.as_ref()) {
            Ok(answer) => Opening::ready(Opened::new(futures::stream::iter(
                frames(&request, answer).into_iter().map(Ok),
            ))),
            Err(reason) => Opening::failed(ProviderError::Response(reason)),
        }
    }
}

/// Call ids follow from the place in the conversation, so the same request has the same answer.
fn frames(request: &CompletionRequest, answer: Answer) -> Vec<Frame> {
    let usage = usage(tokens_of(request), answer.tokens());
    let position = Request::of(request).position;
    match answer {
        Answer::Text(text) => vec![Frame::Text(text), Frame::End { usage, reason: FinishReason::Stop }],
        Answer::Calls(calls) => {
            let calls = calls.into_iter().enumerate().map(|(index, call)| Frame::Call {
                id: format!("{CALL_PREFIX}{position}-{index}"),
                tool: call.tool,
                arguments: json!(call.arguments).to_string(),
            });
            calls.chain([Frame::End { usage, reason: FinishReason::ToolCalls }]).collect()
        }
    }
}

/// Honest counts at no price.
fn usage(input: usize, output: usize) -> Usage {
    let [input, output] = [input, output].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    Usage::new()
        .input_tokens(input)
        .output_tokens(output)
        .total_tokens(input.saturating_add(output))
        .cost(Cost::from_total(0.0))
}
