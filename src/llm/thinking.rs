//! How much a model is asked to think: as a step where it takes steps, and as a number of tokens where it takes
//! only that. Rig translates no step into tokens, and would leave it out.

use rig_core::catalog::Catalog;
use rig_core::completion::{CompletionRequest, Effort, Message, Reasoning};
use rig_core::message::{AssistantContent, AssistantMessage, UserContent};
use rig_core::providers::anthropic::completion::claude_spec;
use rig_core::providers::registry::{Format, ProviderId};

use crate::config::{ProviderWire, ThinkingEffort};

/// Part of the output that thoughts may take, so that an answer has room behind them.
const SHARE_OF_OUTPUT: u32 = 2;
/// Where nobody says how much the model may write.
const OUTPUT_UNKNOWN: u32 = 16_384;

/// Tokens for each step; a model that takes fewer gets its most.
fn tokens_for(effort: Effort) -> u32 {
    match effort {
        Effort::Minimal => 1_024,
        Effort::Low => 2_048,
        Effort::Medium => 8_192,
        Effort::High => 16_384,
        Effort::XHigh => 24_576,
        _ => 32_768,
    }
}

/// None: what the provider does by itself.
pub(super) fn wanted(effort: ThinkingEffort) -> Option<Reasoning> {
    Some(match effort {
        ThinkingEffort::Auto => return None,
        ThinkingEffort::None => Reasoning::Off,
        ThinkingEffort::Minimal => Effort::Minimal.into(),
        ThinkingEffort::Low => Effort::Low.into(),
        ThinkingEffort::Medium => Effort::Medium.into(),
        ThinkingEffort::High => Effort::High.into(),
        ThinkingEffort::XHigh => Effort::XHigh.into(),
        ThinkingEffort::Max => Effort::Max.into(),
    })
}

/// Puts a number of tokens in the place of a step that `model` would not take. `request` has its limit of output.
pub(super) fn fit(request: &mut CompletionRequest, wire: ProviderWire, model: &str) {
    let Some(Reasoning::Effort(effort)) = request.options.reasoning else { return };
    let spec = match wire {
        ProviderWire::Messages => claude_spec(model),
        ProviderWire::Gemini => ProviderId::new("gcp.gemini", Format::Gemini)
            .and_then(|gemini| Catalog::builtin().find(gemini, model)),
        ProviderWire::Chat | ProviderWire::Responses => None,
    };
    let Some(spec) = spec.filter(|spec| spec.reasoning.levels.is_empty()) else { return };
    let Some(range) = &spec.reasoning.budget else { return };
    let limit = request.max_tokens.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    let output = limit.or(spec.max_output_tokens).unwrap_or(OUTPUT_UNKNOWN);
    let tokens = tokens_for(effort).min(*range.end()).min(output / SHARE_OF_OUTPUT);
    let is_refused = wire == ProviderWire::Messages && answers_a_call_without_thoughts(request, model);
    if tokens >= *range.start() && tokens > 0 && !is_refused {
        request.options.reasoning = Some(Reasoning::Budget { tokens });
    }
}

/// Anthropic wants the thoughts before a call together with its result, and another model's cannot be sent.
fn answers_a_call_without_thoughts(request: &CompletionRequest, model: &str) -> bool {
    let answers_a_call = request.chat_history.last().is_some_and(|message| match message {
        Message::User { content } => content.iter().any(|part| matches!(part, UserContent::ToolResult(_))),
        _ => false,
    });
    let has_own_thoughts = |turn: &AssistantMessage| {
        turn.origin.as_ref().is_some_and(|origin| origin.model == model)
            && turn.content.iter().any(|part| matches!(part, AssistantContent::Reasoning(_)))
    };
    let call = request.chat_history.iter().rev().find_map(|message| match message {
        Message::Assistant(turn) => Some(turn),
        _ => None,
    });
    answers_a_call && !call.is_some_and(has_own_thoughts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rig_core::message::{CallId, ToolCall, ToolFunction, ToolName, ToolResultContent};

    use super::*;

    fn asked(effort: Effort, max_tokens: Option<u64>) -> CompletionRequest {
        let mut request = CompletionRequest::new("hello");
        request.options.reasoning = Some(effort.into());
        request.max_tokens = max_tokens;
        request
    }

    #[test]
    fn a_model_that_takes_tokens_gets_them_for_each_step() {
        use ProviderWire::{Chat, Gemini, Messages};
        let cases = [
            (Messages, "claude-sonnet-4-5", Effort::Minimal, None, Some(1_024)),
            (Messages, "claude-haiku-4-5-20251001", Effort::High, None, Some(16_384)),
            (Messages, "claude-sonnet-4-5", Effort::Max, None, Some(32_000)),
            // Below a ceiling, the answer has its half.
            (Messages, "claude-sonnet-4-5", Effort::High, Some(8_192), Some(4_096)),
            (Messages, "claude-sonnet-4-5", Effort::High, Some(1_000), None),
            (Messages, "claude-sonnet-4-6", Effort::High, None, None),
            (Messages, "some-other", Effort::High, None, None),
            (Gemini, "gemini-2.5-flash", Effort::Low, None, Some(2_048)),
            (Gemini, "gemini-2.5-flash", Effort::Max, None, Some(24_576)),
            (Gemini, "gemini-3-flash-preview", Effort::Low, None, None),
            (Chat, "claude-sonnet-4-5", Effort::High, None, None),
        ];
        for (wire, model, effort, max_tokens, wanted) in cases {
            let mut request = asked(effort, max_tokens);
            fit(&mut request, wire, model);
            let found = match request.options.reasoning {
                Some(Reasoning::Budget { tokens }) => Some(tokens),
                _ => None,
            };
            assert_eq!(found, wanted, "{model} {effort:?} {max_tokens:?}");
        }
        let mut off = asked(Effort::High, None);
        off.options.reasoning = Some(Reasoning::Off);
        fit(&mut off, Messages, "claude-sonnet-4-5");
        assert!(matches!(off.options.reasoning, Some(Reasoning::Off)), "nothing is nothing");
    }

    #[test]
    fn a_call_that_another_model_has_made_is_answered_without_thoughts() {
        let mut request = asked(Effort::High, None);
        let name = ToolName::new("look").unwrap();
        let function = ToolFunction::parse(name, "{}");
        let call = ToolCall::new(CallId::from_wire("call_1"), function);
        let result = call.result(vec![ToolResultContent::text("seen")]);
        let turn = AssistantMessage::new(vec![AssistantContent::ToolCall(call)]);
        request.chat_history.push(Message::Assistant(turn));
        request.chat_history.push(Message::User { content: vec![UserContent::ToolResult(result)] });
        for (wire, is_budget) in [(ProviderWire::Messages, false), (ProviderWire::Gemini, true)] {
            let model = if is_budget { "gemini-2.5-pro" } else { "claude-sonnet-4-5" };
            let mut request = request.clone();
            fit(&mut request, wire, model);
            assert_eq!(matches!(request.options.reasoning, Some(Reasoning::Budget { .. })), is_budget);
        }
    }
}
