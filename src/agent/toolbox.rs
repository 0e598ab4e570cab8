//! The tools of one process, with the definitions that the model sees.

use std::sync::OnceLock;

use rig_core::completion::ToolDefinition;
use rig_core::message::ToolName;
use serde_json::Value;

use super::AgentParts;
use super::link::ProcessDesk;
use crate::prompts;
use crate::text;
use crate::thread::Cancel;
use crate::tools::{MAX_TOOL_OUTPUT_BYTES, Tool, ToolContext, ToolError};

/// The definitions of a list of tools, made once: where the agent has skills, and where it has none.
pub(super) struct Definitions([OnceLock<Vec<ToolDefinition>>; 2]);

impl Definitions {
    pub(super) const fn new() -> Self {
        Self([const { OnceLock::new() }; 2])
    }

    pub(super) fn of(&'static self, parts: &AgentParts) -> &'static OnceLock<Vec<ToolDefinition>> {
        &self.0[usize::from(parts.prompts.skills().is_empty())]
    }
}

pub(super) struct Toolbox {
    tools: Vec<Box<dyn Tool>>,
    definitions: &'static [ToolDefinition],
    /// Something from outside has been read.
    outside: bool,
}

impl Toolbox {
    /// The order of `tools` is the order in the prompt; it must not change between turns (P9). All
    /// processes of one kind have the same tools, so that their definitions are made once, in `known`.
    pub(super) fn new(tools: Vec<Box<dyn Tool>>, known: &'static OnceLock<Vec<ToolDefinition>>) -> Self {
        let definition = |tool: &dyn Tool| {
            let name = ToolName::new(tool.name()).ok()?;
            Some(ToolDefinition::new(name, prompts::tool_description(tool.name()), tool.parameters()))
        };
        let definitions =
            known.get_or_init(|| tools.iter().filter_map(|tool| definition(tool.as_ref())).collect());
        Self { tools, definitions, outside: false }
    }

    pub(super) fn definitions(&self) -> &[ToolDefinition] {
        self.definitions
    }

    pub(super) fn is_external(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name() == name && tool.is_external())
    }

    pub(super) fn changes(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name() == name && tool.changes())
    }

    /// For a run that goes on: these calls were made before.
    pub(super) fn remember<'a>(&mut self, called: impl Iterator<Item = &'a str>) {
        let mut reads = called.filter_map(|name| self.tools.iter().find(|tool| tool.name() == name));
        self.outside |= reads.any(|tool| tool.reads_outside());
    }

    /// The run reads words from outside before it calls anything.
    pub(super) fn read_outside(&mut self) {
        self.outside = true;
    }

    /// The names of those that may be called again when nobody knows whether they were.
    #[cfg(test)]
    pub(super) fn repeatable(&self) -> Vec<&'static str> {
        let repeatable = self.tools.iter().filter(|tool| !tool.is_external() && !tool.changes());
        repeatable.map(|tool| tool.name()).collect()
    }

    pub(super) fn call(
        &mut self,
        name: &str,
        arguments: Value,
        cancel: &Cancel,
        desk: &mut ProcessDesk<'_>,
    ) -> Result<String, ToolError> {
        let Some(tool) = self.tools.iter_mut().find(|tool| tool.name() == name) else {
            let names: Vec<_> = self.definitions.iter().map(|definition| definition.name.as_str()).collect();
            return Err(ToolError::NotFound(format!(
                "there is no tool {name:?}; there are {}",
                names.join(", ")
            )));
        };
        let output = tool.call(arguments, &mut ToolContext { cancel, desk, outside: self.outside })?;
        self.outside |= tool.reads_outside();
        if output.len() <= MAX_TOOL_OUTPUT_BYTES {
            return Ok(output);
        }
        Ok(text::shorten(&output, MAX_TOOL_OUTPUT_BYTES).into_owned())
    }
}
