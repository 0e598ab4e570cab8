//! `file_write`: a text file in the workspace, written whole.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::workspace::Workspace;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of, switch};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Path in the workspace.
    path: String,
    /// The whole new text of the file.
    content: String,
    /// Make missing folders (true).
    #[serde(default, deserialize_with = "switch")]
    #[schemars(with = "Option<bool>")]
    create_dirs: Option<bool>,
}

pub struct FileWrite(Arc<Workspace>);

impl FileWrite {
    pub fn new(workspace: Arc<Workspace>) -> Self {
        Self(workspace)
    }
}

impl Tool for FileWrite {
    fn name(&self) -> &'static str {
        "file_write"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn is_external(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { path, content, create_dirs } = arguments_of(arguments)?;
        self.0.write(&path, &content, create_dirs.unwrap_or(true))?;
        Ok(json!({ "written": path, "bytes": content.len() }).to_string())
    }
}
