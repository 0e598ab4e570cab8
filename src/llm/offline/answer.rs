//! What the responder answers: one text, or calls of tools that were offered, with arguments that
//! their schemas allow.

use rig_core::completion::ToolDefinition;
use serde_json::{Map, Value, json};

use super::request::Request;
use crate::id::ProcessId;
use crate::text::estimate_tokens;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Text(String),
    Calls(Vec<Call>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) tool: &'static str,
    pub(super) arguments: Map<String, Value>,
}

impl Call {
    /// A call of a tool; arguments that its schema does not know are left out. None when the tool is
    /// not offered.
    pub(super) fn of(request: &Request<'_>, tool: &'static str, arguments: Value) -> Option<Self> {
        let definition = request.tool(tool)?;
        let Value::Object(mut arguments) = arguments else { return None };
        if let Some(properties) = definition.parameters.get("properties").and_then(Value::as_object) {
            arguments.retain(|name, _| properties.contains_key(name));
        }
        Some(Self { tool, arguments })
    }
}

impl Answer {
    pub(super) fn tokens(&self) -> usize {
        match self {
            Answer::Text(text) => estimate_tokens(text),
            Answer::Calls(calls) => {
                let one = |call: &Call| {
                    estimate_tokens(call.tool) + estimate_tokens(&json!(call.arguments).to_string())
                };
                calls.iter().map(one).sum()
            }
        }
    }
}

/// A process as the schema of `property` wants it: the bare number, or `worker:7`.
pub(super) fn process_argument(tool: &ToolDefinition, property: &str, process: ProcessId) -> Value {
    if wants_number(tool, property) { json!(process.number) } else { json!(process.to_string()) }
}

pub(super) fn wants_number(tool: &ToolDefinition, property: &str) -> bool {
    match property_schema(tool, property).and_then(|schema| schema.get("type")) {
        Some(Value::String(kind)) => is_numeric(kind),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(is_numeric),
        _ => false,
    }
}

fn is_numeric(kind: &str) -> bool {
    matches!(kind, "integer" | "number")
}

/// Whether the schema lists `value` among the values of `property`; none when it lists no values.
pub(super) fn lists(tool: &ToolDefinition, property: &str, value: &str) -> Option<bool> {
    let mut values = Vec::new();
    listed_values(&tool.parameters, property_schema(tool, property)?, MAX_SCHEMA_DEPTH, &mut values);
    (!values.is_empty()).then(|| values.contains(&value))
}

/// How deep values may be nested: an optional choice behind a reference is three levels down.
const MAX_SCHEMA_DEPTH: usize = 6;

fn listed_values<'a>(root: &'a Value, schema: &'a Value, depth: usize, values: &mut Vec<&'a str>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let listed =
        schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
    values.extend(listed.filter_map(Value::as_str));
    for choice in ["anyOf", "oneOf", "allOf"] {
        for schema in schema.get(choice).and_then(Value::as_array).into_iter().flatten() {
            listed_values(root, schema, depth, values);
        }
    }
    let target =
        schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?));
    if let Some(target) = target {
        listed_values(root, target, depth, values);
    }
}

fn property_schema<'a>(tool: &'a ToolDefinition, property: &str) -> Option<&'a Value> {
    tool.parameters.get("properties")?.get(property)
}
