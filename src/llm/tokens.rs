//! How many tokens something is: estimated from its characters, and corrected for each model by what its
//! provider has counted.

use std::collections::HashMap;
use std::sync::Mutex;

use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::{AssistantContent, ToolResultContent, UserContent};

use crate::text::CHARACTERS_PER_TOKEN;
use crate::thread::lock;

/// What parts that are no text are taken for, in characters.
pub const IMAGE_CHARACTERS: usize = 500;
pub const DOCUMENT_CHARACTERS: usize = 1_000;
pub const TOOL_IMAGE_CHARACTERS: usize = 100;

/// Bounds of the correction. A provider that leaves cached tokens out would otherwise let a window
/// overflow, and one that counts in another unit would empty it.
pub const FACTOR_MIN: f64 = 0.75;
pub const FACTOR_MAX: f64 = 4.0;
/// Share of the newest count in the factor: one odd request does not move it far.
const NEWEST: f64 = 0.25;
/// Shorter requests say more about a provider's own additions than about its tokens.
const LEAST_TOKENS: usize = 200;

/// Estimate of what these messages take, without the correction.
pub fn estimate<'a>(messages: impl IntoIterator<Item = &'a Message>) -> usize {
    messages.into_iter().map(characters).sum::<usize>().div_ceil(CHARACTERS_PER_TOKEN)
}

fn characters(message: &Message) -> usize {
    match message {
        Message::System { content } => content.chars().count(),
        Message::User { content } => content.iter().map(of_user).sum(),
        Message::Assistant(said) => said.content.iter().map(of_assistant).sum(),
    }
}

fn of_user(content: &UserContent) -> usize {
    match content {
        UserContent::Text(text) => text.text.chars().count(),
        UserContent::ToolResult(result) => result.content.iter().map(of_result).sum(),
        UserContent::Image(_) => IMAGE_CHARACTERS,
        _ => DOCUMENT_CHARACTERS,
    }
}

fn of_result(content: &ToolResultContent) -> usize {
    match content {
        ToolResultContent::Text(text) => text.text.chars().count(),
        ToolResultContent::Json { value } => value.to_string().chars().count(),
        ToolResultContent::Image(_) => TOOL_IMAGE_CHARACTERS,
    }
}

fn of_assistant(content: &AssistantContent) -> usize {
    match content {
        AssistantContent::Text(text) => text.text.chars().count(),
        AssistantContent::ToolCall(call) => {
            call.function.name.as_str().len() + call.function.arguments_value().to_string().chars().count()
        }
        AssistantContent::Image(_) => IMAGE_CHARACTERS,
        // Thoughts and a provider's own items are not in what we send again.
        _ => 0,
    }
}

/// Estimate for a whole request: its messages and its tools.
pub(super) fn of_request(request: &CompletionRequest) -> usize {
    let tools = request.tools.iter().map(|tool| {
        let description: &str = &tool.description;
        description.chars().count() + tool.parameters.to_string().chars().count()
    });
    estimate(&request.chat_history) + tools.sum::<usize>().div_ceil(CHARACTERS_PER_TOKEN)
}

/// What providers have counted, against what we had estimated.
#[derive(Default)]
pub(super) struct Calibration {
    /// By `provider/model`, so bounded by the configuration.
    factors: Mutex<HashMap<String, f64>>,
}

impl Calibration {
    /// A provider has counted the tokens of a request.
    pub(super) fn learn(&self, model: &str, request: &CompletionRequest, counted: Option<u64>) {
        let Some(counted) = counted.filter(|counted| *counted > 0) else { return };
        self.learn_from(model, of_request(request), counted);
    }

    fn learn_from(&self, model: &str, estimated: usize, counted: u64) {
        if estimated < LEAST_TOKENS {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // token counts are far below 2^52
        let newest = (counted as f64 / estimated as f64).clamp(FACTOR_MIN, FACTOR_MAX);
        let mut factors = lock(&self.factors);
        let factor = factors.entry(model.to_owned()).or_insert(newest);
        *factor += (newest - *factor) * NEWEST;
    }

    /// By how much an estimate for this model is to be multiplied; 1 until it has answered.
    pub(super) fn factor(&self, model: &str) -> f64 {
        lock(&self.factors).get(model).copied().unwrap_or(1.0)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use rig_core::message::{ImageMediaType, ToolCall, ToolFunction, ToolName};
    use serde_json::json;

    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn the_first_count_is_believed_and_later_ones_move_it_slowly_between_its_bounds() {
        let calibration = Calibration::default();
        assert!(close(calibration.factor("a/b"), 1.0));
        calibration.learn_from("a/b", LEAST_TOKENS - 1, 1_000_000);
        assert!(close(calibration.factor("a/b"), 1.0), "too short to say anything");
        calibration.learn_from("a/b", 1_000, 1_500);
        assert!(close(calibration.factor("a/b"), 1.5));
        calibration.learn_from("a/b", 1_000, 1_100);
        assert!(close(calibration.factor("a/b"), 1.4));
        assert!(close(calibration.factor("a/c"), 1.0), "each model has its own");
        for _ in 0..100 {
            calibration.learn_from("a/b", 1_000, 100_000);
            calibration.learn_from("a/c", 1_000, 1);
        }
        assert!((FACTOR_MAX - 0.01..=FACTOR_MAX).contains(&calibration.factor("a/b")));
        assert!((FACTOR_MIN..=FACTOR_MIN + 0.01).contains(&calibration.factor("a/c")));
    }

    #[test]
    fn parts_that_are_no_text_count_for_what_they_are_taken_for() {
        let text = Message::user("x".repeat(400));
        let image = UserContent::image_base64("aGk=", Some(ImageMediaType::PNG), None);
        let image = Message::User { content: vec![image] };
        let name = ToolName::new("shell").expect("a name");
        let call = ToolCall::from_wire("c1", ToolFunction::new(name, json!({ "command": "ls" })));
        let shown = call.result(vec![
            ToolResultContent::text("y".repeat(40)),
            ToolResultContent::image_base64("aGk=", Some(ImageMediaType::PNG), None),
        ]);
        let shown = Message::User { content: vec![UserContent::ToolResult(shown)] };
        assert_eq!(estimate([&text]), 100);
        assert_eq!(estimate([&image]), IMAGE_CHARACTERS / 4);
        assert_eq!(estimate([&shown]), (40 + TOOL_IMAGE_CHARACTERS) / 4);
        assert_eq!(estimate([&text, &image, &shown]), 100 + 125 + 35);
        assert_eq!(estimate([]), 0);
    }
}
