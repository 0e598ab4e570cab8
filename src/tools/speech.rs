//! What may be said to a person: words, and neither the machinery behind them nor keys.
//!
//! Models without good support for tools write a call as text; others repeat the fences of their prompt.
//! Nobody wants to read that. It goes back to the model with a word on what is wrong.

use std::sync::Arc;

use serde_json::Value;

use super::ToolError;
use crate::prompts;
use crate::secrets::Scrubber;

/// Beginnings and tags in which models write tool calls as text, and what the prompts fence with.
const MACHINERY: &[&str] = &[
    "<tool_call",
    "</tool_call",
    "<tool_use",
    "<function_call",
    "<function=",
    "<invoke ",
    "<parameter ",
    "[TOOL_CALLS]",
    "<|tool",
    "<|python_tag|>",
    "<|im_start|>",
    "<system-reminder",
    "<message ",
    "</message>",
    "<result ",
    "</result>",
    "</status>",
    "</recent>",
    "</summary>",
    "</people>",
    "</note>",
];
/// Fields of an object that is a call.
const CALL_NAME: &[&str] = &["name", "tool", "tool_name", "function", "recipient_name"];
const CALL_ARGUMENTS: &[&str] = &["arguments", "parameters", "args", "input", "tool_input", "function_args"];
/// What a channel may call; a text that is such a call is not meant for anybody.
const TOOLS: &[&str] = &[
    "reply",
    "skip",
    "react",
    "branch",
    "spawn_worker",
    "route",
    "cancel",
    "cron",
    "send_agent_message",
    "set_outcome",
    "memory_save",
    "memory_recall",
];
/// Literal `\n` in a text of one line that make it one of several.
const ESCAPED_BREAKS: usize = 2;

/// Why words are not for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// A tool call, or the fences of a prompt.
    Machinery,
    /// Data without words, where nobody has chosen to send that.
    Data,
    /// A key.
    Key,
}

impl Unfit {
    /// What the model reads about it.
    pub fn correction(self) -> &'static str {
        prompts::notice(match self {
            Unfit::Machinery => "speech_machinery",
            Unfit::Data => "speech_data",
            Unfit::Key => "speech_key",
        })
    }
}

/// Judges what would be said. Clones share the keys that must not be told.
#[derive(Clone, Default)]
pub struct Speech(Arc<Scrubber>);

impl Speech {
    pub fn new(scrubber: Arc<Scrubber>) -> Self {
        Self(scrubber)
    }

    /// Words that a tool was given for a person, with line breaks where they were written as `\n`.
    ///
    /// # Errors
    /// [`ToolError::Invalid`] with what to do instead.
    pub fn of_tool(&self, content: &str) -> Result<String, ToolError> {
        let content = with_breaks(content.trim());
        match self.judge(&content) {
            None => Ok(content),
            Some(unfit) => Err(ToolError::Invalid(unfit.correction().to_owned())),
        }
    }

    /// Text that was not said with a tool: what is only data was hardly meant for anybody either.
    pub fn of_text(&self, text: &str) -> Option<Unfit> {
        let text = text.trim();
        let data = || matches!(serde_json::from_str(text), Ok(Value::Object(_) | Value::Array(_)));
        self.judge(text).or_else(|| data().then_some(Unfit::Data))
    }

    fn judge(&self, text: &str) -> Option<Unfit> {
        if is_machinery(text) { Some(Unfit::Machinery) } else { self.0.finds_key(text).then_some(Unfit::Key) }
    }
}

fn is_machinery(text: &str) -> bool {
    // What stands in a block of code is quoted.
    let outside: String = text.split("```").step_by(2).collect();
    let spoken: String = outside.split('`').step_by(2).collect();
    MACHINERY.iter().any(|mark| spoken.contains(mark)) || is_call(unfenced(text))
}

/// A text that is nothing but one block of code, without its fence.
fn unfenced(text: &str) -> &str {
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.split_once('\n').map_or(inner, |(_, body)| body)).trim()
}

/// `reply({...})`, `skip`, `{"name": "reply", "arguments": {...}}`, `[{...}]` of those.
fn is_call(text: &str) -> bool {
    let named = TOOLS.iter().find_map(|tool| text.strip_prefix(tool));
    if let Some(rest) = named.map(str::trim_start) {
        let object = rest.trim_start_matches([':', '(']).trim_start();
        let called = rest.starts_with('(') && text.ends_with(')');
        if rest.is_empty()
            || called
            || (object.len() < rest.len() && object.starts_with('{'))
            || rest.starts_with('{')
        {
            return true;
        }
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(calls)) => !calls.is_empty() && calls.iter().all(is_call_object),
        Ok(value) => is_call_object(&value),
        Err(_) => false,
    }
}

fn is_call_object(value: &Value) -> bool {
    let Value::Object(fields) = value else { return false };
    let names = |names: &[&str]| names.iter().any(|name| fields.contains_key(*name));
    let only_content = fields.len() == 1 && fields.get("content").is_some_and(Value::is_string);
    names(CALL_NAME) && names(CALL_ARGUMENTS) || only_content
}

/// Models write the escapes of JSON twice.
fn with_breaks(text: &str) -> String {
    if !text.contains('\n') && text.matches("\\n").count() >= ESCAPED_BREAKS {
        text.replace("\\n", "\n")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Each line: `fit`, `machinery`, `data` or `key`, a blank, what would be said.
    const CASES: &str = include_str!("../../tests/fixtures/speech/cases.txt");

    #[test]
    fn people_read_words_and_no_machinery() {
        let speech = Speech::default();
        let mut seen = [0; 4];
        for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (verdict, said) = line.split_once(' ').expect(line);
            let said = said.replace("\\n", "\n");
            let unfit = speech.of_text(&said);
            let expected =
                ["fit", "machinery", "data", "key"].iter().position(|known| *known == verdict).expect(line);
            assert_eq!(
                unfit,
                [None, Some(Unfit::Machinery), Some(Unfit::Data), Some(Unfit::Key)][expected],
                "{said}"
            );
            // Who chose to send data wanted to.
            let refused = matches!(unfit, Some(Unfit::Machinery | Unfit::Key));
            assert_eq!(speech.of_tool(&said).is_err(), refused, "{said}");
            seen[expected] += 1;
        }
        assert!(seen.iter().all(|count| *count > 2), "{seen:?}");
    }

    #[test]
    fn escaped_breaks_become_breaks_where_there_are_no_others() {
        let speech = Speech::default();
        assert_eq!(speech.of_tool(r"one\ntwo\nthree").unwrap(), "one\ntwo\nthree");
        assert_eq!(speech.of_tool(r"in C a line ends with \n").unwrap(), r"in C a line ends with \n");
        assert_eq!(speech.of_tool("a\nb \\n c \\n d").unwrap(), "a\nb \\n c \\n d");
    }
}
