//! What a scripted model says and sees, in the shapes that tests of whole processes use.

use serde_json::Value;

use super::{Answer, Body, Double, Request, Say, ToolCall, WireFormat};

/// The config that makes the double the model of every process; what is appended to it stands in
/// `[defaults.routing]`.
pub fn config(double: &Double, defaults: &str) -> String {
    let url = double.base_url("p", WireFormat::OpenAi);
    format!(
        "[llm.provider.double]\napi_type = \"openai_chat_completions\"\nbase_url = \"{url}\"\napi_key = \"k-double\"\n\
         [defaults]\n{defaults}\n[defaults.routing]\nchannel = \"double/m\"\nbranch = \"double/m\"\nworker = \"double/m\"\n"
    )
}

/// An answer that calls these tools.
pub fn calls(list: &[(&str, Value)]) -> Say {
    let call = |(number, (name, arguments)): (usize, &(&str, Value))| ToolCall {
        id: format!("call_{number}"),
        name: (*name).to_owned(),
        arguments: arguments.to_string(),
    };
    Say::new(Body::Answer(Answer { calls: list.iter().enumerate().map(call).collect(), ..Answer::default() }))
}

/// Whether the process that asks has this tool.
pub fn offers(request: &Request, tool: &str) -> bool {
    request.json["tools"].to_string().contains(&format!("\"{tool}\""))
}

pub fn messages(request: &Request) -> Vec<Value> {
    request.json["messages"].as_array().cloned().unwrap_or_default()
}

/// The last message as JSON; empty when there is none.
pub fn last_message(request: &Request) -> String {
    messages(request).last().map(Value::to_string).unwrap_or_default()
}
