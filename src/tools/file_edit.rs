//! `file_edit`: replace one passage of a text file in the workspace.

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
    /// The passage as it stands in the file, exactly.
    old_string: String,
    /// What stands there afterwards.
    new_string: String,
    /// Replace every occurrence; without it the passage must occur once (false).
    #[serde(default, deserialize_with = "switch")]
    #[schemars(with = "Option<bool>")]
    replace_all: Option<bool>,
}

pub struct FileEdit(Arc<Workspace>);

impl FileEdit {
    pub fn new(workspace: Arc<Workspace>) -> Self {
        Self(workspace)
    }
}

impl Tool for FileEdit {
    fn name(&self) -> &'static str {
        "file_edit"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn is_external(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { path, old_string, new_string, replace_all } = arguments_of(arguments)?;
        if old_string.is_empty() || old_string == new_string {
            return Err(ToolError::Invalid(
                "old_string must not be empty and must differ from new_string".to_owned(),
            ));
        }
        let text = self.0.read_text(&path)?;
        let found = text.matches(&old_string).count();
        if found == 0 {
            return Err(ToolError::NotFound(format!(
                "old_string does not occur in {path}; read the file again"
            )));
        }
        if found > 1 && !replace_all.unwrap_or(false) {
            let advice = "add lines around it until it is unique, or set replace_all";
            return Err(ToolError::Invalid(format!("old_string occurs {found} times in {path}; {advice}")));
        }
        self.0.write(&path, &text.replace(&old_string, &new_string), false)?;
        Ok(json!({ "edited": path, "replaced": found }).to_string())
    }
}
