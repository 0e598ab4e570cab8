//! `shell`: run a command in the sandbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, number, schema_of};
use crate::exec::{self, Command, ExecError, Sandbox};

const DEFAULT_TIMEOUT_SECONDS: usize = 60;
const MAX_TIMEOUT_SECONDS: usize = 300;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// For /bin/sh.
    command: String,
    /// Folder in the workspace (the workspace itself).
    #[serde(default)]
    working_dir: Option<String>,
    /// Further environment variables.
    #[serde(default)]
    env: Vec<Variable>,
    /// 1 to 300 (60).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    timeout_seconds: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Variable {
    key: String,
    value: String,
}

pub struct Shell(Arc<Sandbox>);

impl Shell {
    pub fn new(sandbox: Arc<Sandbox>) -> Self {
        Self(sandbox)
    }
}

impl Tool for Shell {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn is_external(&self) -> bool {
        true
    }

    fn reads_outside(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { command, working_dir, env, timeout_seconds } = arguments_of(arguments)?;
        let seconds = timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS).clamp(1, MAX_TIMEOUT_SECONDS);
        let command = Command {
            shell: command,
            folder: PathBuf::from(working_dir.unwrap_or_default()),
            variables: env.into_iter().map(|variable| (variable.key, variable.value)).collect(),
            timeout: Duration::from_secs(seconds as u64),
        };
        let output = exec::run(&self.0, &command, context.cancel).map_err(|error| match error {
            ExecError::Cancelled => ToolError::Cancelled,
            ExecError::Unavailable(_) | ExecError::Refused(_) => ToolError::Denied(error.to_string()),
            ExecError::Start(_) => ToolError::Failed(error.to_string()),
        })?;
        let end = match (output.timed_out, output.code, output.signal) {
            (true, _, _) => format!("stopped after {seconds} seconds"),
            (_, Some(code), _) => format!("exit code {code}"),
            (_, None, Some(signal)) => format!("ended by signal {signal}"),
            (_, None, None) => "ended".to_owned(),
        };
        Ok(format!("{end}\n{}", output.text))
    }
}
