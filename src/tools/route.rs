//! `route`: send a message to a worker that runs or waits.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Tool, ToolContext, ToolError, arguments_of, process_of, schema_of, started};
use crate::conversation::{Conversations, ROUTED_MAX};
use crate::effect::{Answer, Ask, Effect, Refusal};
use crate::id::{ProcessId, ProcessKind};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// The worker as the status block names it, such as `worker:7`.
    worker_id: String,
    /// What the worker shall read.
    message: String,
}

pub struct Route {
    conversations: Conversations,
    /// To whom this turn has messages.
    sent: Vec<ProcessId>,
}

impl Route {
    pub fn new(conversations: Conversations) -> Self {
        Self { conversations, sent: Vec::new() }
    }

    fn has_room(&self, worker: ProcessId) -> Result<bool, ToolError> {
        let waiting = self.conversations.waiting_for(worker.number);
        let Some(waiting) = waiting.map_err(|error| ToolError::Failed(error.to_string()))? else {
            let words = "has only just been started; tell it later, or put into its task what it needs";
            return Err(ToolError::Failed(format!("{worker} {words}")));
        };
        Ok(waiting + self.sent.iter().filter(|sent| **sent == worker).count() < ROUTED_MAX)
    }
}

impl Tool for Route {
    fn name(&self) -> &'static str {
        "route"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    /// The message goes with the end of the turn: a turn that is tried again has sent nothing.
    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { worker_id, message } = arguments_of(arguments)?;
        let worker = process_of(ProcessKind::Worker, &worker_id)?;
        let answer = context.desk.ask(Ask::Route { worker })?;
        if !matches!(answer, Answer::Done(_)) {
            return started(answer);
        }
        if !self.has_room(worker)? {
            return started(Answer::Refused(Refusal::Busy(worker)));
        }
        self.sent.push(worker);
        context.desk.tell(Effect::Route { worker: worker.number, message });
        started(answer)
    }
}
