//! `file_list`: what is in a folder of the workspace.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::workspace::Workspace;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};

/// Entries that one call shows.
const MAX_ENTRIES: usize = 500;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Folder in the workspace (the workspace itself).
    #[serde(default)]
    path: String,
}

pub struct FileList(Arc<Workspace>);

impl FileList {
    pub fn new(workspace: Arc<Workspace>) -> Self {
        Self(workspace)
    }
}

impl Tool for FileList {
    fn name(&self) -> &'static str {
        "file_list"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { path } = arguments_of(arguments)?;
        let listing = self.0.list(&path, MAX_ENTRIES)?;
        let entries: Vec<_> = listing
            .entries
            .iter()
            .map(|(name, kind, size)| json!({ "name": name, "kind": kind, "size": size }))
            .collect();
        Ok(json!({ "entries": entries, "left_out": listing.left_out }).to_string())
    }
}
