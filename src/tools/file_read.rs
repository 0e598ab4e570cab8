//! `file_read`: lines of a text file in the workspace, with their numbers.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::workspace::Workspace;
use super::{MAX_TOOL_OUTPUT_BYTES, Tool, ToolContext, ToolError, arguments_of, number, schema_of};

/// Bytes that are looked through for the wanted lines.
const MAX_SCAN_BYTES: u64 = 64 << 20;
/// Longest line that is shown whole, in bytes.
const MAX_LINE_BYTES: usize = 4_000;
/// Room for the notice at the end.
const NOTICE_BYTES: usize = 200;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Path in the workspace.
    path: String,
    /// First line, from 1 (1).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    offset: Option<usize>,
    /// Lines at most (2000).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    limit: Option<usize>,
}

pub struct FileRead(Arc<Workspace>);

impl FileRead {
    pub fn new(workspace: Arc<Workspace>) -> Self {
        Self(workspace)
    }
}

impl Tool for FileRead {
    fn name(&self) -> &'static str {
        "file_read"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn reads_outside(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { path, offset, limit } = arguments_of(arguments)?;
        let (first, limit) = (offset.unwrap_or(1).max(1), limit.unwrap_or(2000));
        let mut reader = BufReader::new(self.0.read(&path)?.take(MAX_SCAN_BYTES));
        let (mut out, mut line, mut at) = (String::new(), Vec::new(), 0);
        loop {
            if context.cancel.is_cancelled() {
                return Err(ToolError::Cancelled);
            }
            line.clear();
            let read =
                reader.read_until(b'\n', &mut line).map_err(|error| ToolError::Failed(error.to_string()))?;
            if read == 0 {
                break;
            }
            at += 1;
            if line.contains(&0) {
                return Err(ToolError::Invalid(format!("{path} is no text file")));
            }
            if at < first {
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            let shown = format!(
                "{at}\t{}\n",
                crate::text::shorten(text.trim_end_matches(['\r', '\n']), MAX_LINE_BYTES)
            );
            if at >= first + limit || out.len() + shown.len() + NOTICE_BYTES > MAX_TOOL_OUTPUT_BYTES {
                out.push_str(&format!("[more from line {at} on; use offset]\n"));
                break;
            }
            out.push_str(&shown);
        }
        Ok(if out.is_empty() { format!("[{path} has {at} lines]") } else { out })
    }
}
