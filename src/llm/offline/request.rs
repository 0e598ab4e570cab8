//! What the responder reads of a request: the tools that are offered, what was asked last, and what
//! the calls made since then came to.

use std::borrow::Cow;

use rig_core::completion::{CompletionRequest, Message, ToolDefinition};
use rig_core::message::{AssistantContent, CallId, ToolChoice, ToolResult, ToolResultContent, UserContent};
use serde_json::{Map, Value};

use crate::text::{estimate_tokens, one_line};
use crate::turn::{self, Part};

/// Every id that we give to a call begins like this, so that a call of a language model that went
/// away in the middle of a turn is not taken for ours.
pub(super) const CALL_PREFIX: &str = "offline-";

/// How many texts back from the newest we look: a worker may have got several orders since it last
/// reported.
const MAX_EPISODES: usize = 8;

/// Longest reason out of a tool's answer that is repeated in a sentence.
const MAX_REASON_BYTES: usize = 300;

/// The kind of process that asks, told by its tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Channel,
    /// A channel without a person: a job that has come due.
    Job,
    Branch,
    Worker,
    Ingestion,
    /// No tools, or none that we know.
    Other,
}

pub(super) struct Request<'a> {
    tools: &'a [ToolDefinition],
    may_call: bool,
    /// Oldest first; the last is the newest text.
    pub(super) episodes: Vec<Episode<'a>>,
    /// Messages in the history: the base of call ids.
    pub(super) position: usize,
}

/// One text of the user's side and what followed it.
#[derive(Default)]
pub(super) struct Episode<'a> {
    pub(super) prompt: Cow<'a, str>,
    pub(super) steps: Vec<Step<'a>>,
    /// The model has said something in plain text.
    pub(super) spoke: bool,
}

/// One tool call, with its answer once that is there.
pub(super) struct Step<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: &'a Map<String, Value>,
    pub(super) outcome: Option<Outcome>,
    id: &'a CallId,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) text: String,
    /// The answer as JSON where it is some.
    pub(super) value: Option<Value>,
    is_error: bool,
}

impl<'a> Request<'a> {
    pub(super) fn of(request: &'a CompletionRequest) -> Self {
        Self {
            tools: &request.tools,
            may_call: !matches!(request.tool_choice, Some(ToolChoice::None)),
            episodes: episodes(&request.chat_history),
            position: request.chat_history.len(),
        }
    }

    pub(super) fn asking(&self) -> Asking {
        if self.offers("reply") {
            Asking::Channel
        } else if self.offers("memory_persistence_complete") {
            Asking::Ingestion
        } else if self.offers("set_outcome") {
            Asking::Job
        } else if self.offers("memory_save") {
            Asking::Branch
        } else if self.offers("shell") || self.offers("set_status") {
            Asking::Worker
        } else {
            Asking::Other
        }
    }

    pub(super) fn offers(&self, tool: &str) -> bool {
        self.tool(tool).is_some()
    }

    pub(super) fn tool(&self, name: &str) -> Option<&'a ToolDefinition> {
        self.tools.iter().filter(|_| self.may_call).find(|tool| tool.name.as_str() == name)
    }

    /// The newest text and what followed it; there is always one.
    pub(super) fn newest(&self) -> &Episode<'a> {
        const NONE: &Episode<'static> =
            &Episode { prompt: Cow::Borrowed(""), steps: Vec::new(), spoke: false };
        self.episodes.last().unwrap_or(NONE)
    }
}

impl Episode<'_> {
    /// The prompt of a branch or worker as plain words, also when somebody has fenced it.
    pub(super) fn plain(&self) -> String {
        let said = turn::read(&self.prompt).into_iter().filter_map(|part| match part {
            Part::Said { text, .. } => Some(text),
            _ => None,
        });
        said.collect::<Vec<_>>().join("\n").trim().to_owned()
    }
}

impl<'a> Episode<'a> {
    /// Our own calls.
    pub(super) fn own(&self) -> impl Iterator<Item = &Step<'a>> {
        self.steps.iter().filter(|step| step.is_own())
    }

    /// Our calls of one tool.
    pub(super) fn own_calls(&self, tool: &str) -> impl Iterator<Item = &Step<'a>> {
        self.own().filter(move |step| step.name == tool)
    }
}

impl Step<'_> {
    pub(super) fn is_own(&self) -> bool {
        self.id.wire().starts_with(CALL_PREFIX)
    }

    /// Why the call did not do its work; none when it did.
    pub(super) fn failure(&self, refusals: &[String]) -> Option<String> {
        match &self.outcome {
            Some(outcome) => outcome.failure(refusals),
            None => Some(String::new()),
        }
    }
}

impl Outcome {
    fn of(result: &ToolResult) -> Self {
        let value = result.content.iter().find_map(|item| item.as_json().cloned());
        let texts = result.content.iter().filter_map(|item| match item {
            ToolResultContent::Text(text) => Some(text.text.clone()),
            ToolResultContent::Json { value } => Some(value.to_string()),
            ToolResultContent::Image(_) => None,
        });
        let text = texts.collect::<Vec<_>>().join("\n");
        let value =
            value.or_else(|| serde_json::from_str(&text).ok().filter(|value: &Value| value.is_object()));
        Self { text, value, is_error: result.is_error }
    }

    /// Why the tool did not do its work, in its own words: it says so by the error flag, by an
    /// `error` in its JSON, or in plain words such as those of `refusals`.
    pub(super) fn failure(&self, refusals: &[String]) -> Option<String> {
        let field = |name: &str| self.value.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let says_error =
            self.value.as_ref().is_some_and(|value| value.get("error").is_some_and(|e| !e.is_null()));
        let refused = self.value.is_none() && {
            let lower = self.text.to_lowercase();
            refusals.iter().any(|word| lower.contains(word.as_str()))
        };
        if !(self.is_error || says_error || refused) {
            return None;
        }
        let reason = field("message").or_else(|| field("error")).unwrap_or_else(|| self.text.clone());
        Some(one_line(&reason, MAX_REASON_BYTES))
    }
}

/// The last texts of the user's side. Rig joins neighbouring user messages into one, so tool results
/// and several texts may stand in the same message.
fn episodes(history: &[Message]) -> Vec<Episode<'_>> {
    let mut texts = 0;
    let first = history.iter().rposition(|message| {
        texts += texts_of(message);
        texts >= MAX_EPISODES
    });
    let mut episodes: Vec<Episode<'_>> = Vec::new();
    for message in &history[first.unwrap_or(0)..] {
        match message {
            Message::System { .. } => {}
            Message::User { content } => content.iter().for_each(|item| match item {
                UserContent::Text(text) if !text.text.trim().is_empty() => {
                    episodes.push(Episode { prompt: Cow::Borrowed(&text.text), ..Episode::default() });
                }
                UserContent::ToolResult(result) => answer(&mut episodes, result),
                _ => {}
            }),
            Message::Assistant(said) => {
                if let Some(episode) = episodes.last_mut() {
                    episode.spoke |= said.content.iter().any(is_text);
                    episode.steps.extend(said.tool_calls().map(|call| Step {
                        name: call.function.name.as_str(),
                        arguments: &call.function.arguments,
                        outcome: None,
                        id: &call.id,
                    }));
                }
            }
        }
    }
    joined(episodes)
}

/// Within a turn several messages may come between two steps: they are answered together. Behind the first step
/// there is nothing but that turn; in front of it stands the history, whose texts stay apart.
fn joined(episodes: Vec<Episode<'_>>) -> Vec<Episode<'_>> {
    let (mut joined, mut acted): (Vec<Episode<'_>>, bool) = (Vec::with_capacity(episodes.len()), false);
    for mut episode in episodes {
        if let Some(open) = joined.pop_if(|last| acted && last.steps.is_empty() && !last.spoke) {
            episode.prompt = Cow::Owned(format!("{}\n{}", open.prompt, episode.prompt));
        }
        acted |= !episode.steps.is_empty();
        joined.push(episode);
    }
    joined
}

fn is_text(content: &AssistantContent) -> bool {
    matches!(content, AssistantContent::Text(text) if !text.text.trim().is_empty())
}

fn texts_of(message: &Message) -> usize {
    let Message::User { content } = message else { return 0 };
    content
        .iter()
        .filter(|item| matches!(item, UserContent::Text(text) if !text.text.trim().is_empty()))
        .count()
}

fn answer(episodes: &mut [Episode<'_>], result: &ToolResult) {
    let steps = episodes.iter_mut().rev().flat_map(|episode| episode.steps.iter_mut());
    if let Some(step) = steps.into_iter().find(|step| *step.id == result.call && step.outcome.is_none()) {
        step.outcome = Some(Outcome::of(result));
    }
}

/// What the request would weigh for a language model, roughly; nobody is billed for it.
pub(super) fn tokens_of(request: &CompletionRequest) -> usize {
    let messages = request.chat_history.iter().map(|message| match message {
        Message::System { content } => estimate_tokens(content),
        Message::User { content } => content.iter().map(user_tokens).sum(),
        Message::Assistant(said) => said.content.iter().map(assistant_tokens).sum(),
    });
    let tools = request.tools.iter().map(|tool| {
        estimate_tokens(&tool.name)
            + estimate_tokens(&tool.description)
            + estimate_tokens(&tool.parameters.to_string())
    });
    messages.sum::<usize>() + tools.sum::<usize>()
}

fn user_tokens(content: &UserContent) -> usize {
    match content {
        UserContent::Text(text) => estimate_tokens(&text.text),
        UserContent::ToolResult(result) => estimate_tokens(&Outcome::of(result).text),
        _ => 0,
    }
}

fn assistant_tokens(content: &AssistantContent) -> usize {
    match content {
        AssistantContent::Text(text) => estimate_tokens(&text.text),
        AssistantContent::ToolCall(call) => {
            estimate_tokens(&call.function.name)
                + estimate_tokens(&call.function.arguments_value().to_string())
        }
        _ => 0,
    }
}
