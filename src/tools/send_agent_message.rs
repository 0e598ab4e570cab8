//! `send_agent_message`: give a task to a linked agent; its result comes back later.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::config::LinkedAgent;
use crate::conversation::Conversations;
use crate::effect::Effect;
use crate::id::AgentId;

/// Longest message, in bytes: two pages; more belongs into a file.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Questions to agents that may follow from one another's answers before a person has to speak again.
pub const DEPTH_MAX: u32 = 3;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Id of the agent.
    target: String,
    /// The whole task: the other agent sees nothing else of this conversation.
    message: String,
}

pub struct SendAgentMessage {
    conversations: Conversations,
    links: Vec<LinkedAgent>,
    /// Questions that led to what this turn is about.
    depth: u32,
    /// To whom this turn has sent messages.
    sent: Vec<AgentId>,
}

impl SendAgentMessage {
    pub fn new(conversations: Conversations, links: Vec<LinkedAgent>, depth: u32) -> Self {
        Self { conversations, links, depth, sent: Vec::new() }
    }

    fn linked(&self, target: &str) -> Result<&LinkedAgent, ToolError> {
        let wanted = target.trim();
        let named = |link: &&LinkedAgent| {
            link.agent.as_str() == wanted || link.display_name.to_lowercase() == wanted.to_lowercase()
        };
        match self.links.iter().find(named) {
            Some(link) if link.may_ask => Ok(link),
            Some(link) => Err(ToolError::Denied(format!(
                "the link with {} goes one way: it may give tasks to you, you may not give any to it",
                link.agent
            ))),
            None => {
                let askable = self.links.iter().filter(|link| link.may_ask);
                let names: Vec<_> = askable.map(|link| link.agent.as_str()).collect();
                let names = names.join(", ");
                Err(ToolError::Denied(format!(
                    "there is no link to {wanted:?}; you may give tasks to: {names}"
                )))
            }
        }
    }

    fn check_limit(&self, link: &LinkedAgent) -> Result<(), ToolError> {
        if self.depth >= DEPTH_MAX {
            return Err(ToolError::Denied(format!(
                "{DEPTH_MAX} questions to agents have followed from one another here; say what you have, and go on when a person asks for it"
            )));
        }
        let lately = self.conversations.delegated_lately(&link.agent);
        let lately = lately.map_err(|error| ToolError::Failed(error.to_string()))?;
        let now = self.sent.iter().filter(|sent| **sent == link.agent).count();
        if lately + now >= link.messages_per_hour {
            return Err(ToolError::Denied(format!(
                "{} messages have gone to {} within the last hour, which is the limit; say so and do without it",
                link.messages_per_hour, link.agent
            )));
        }
        Ok(())
    }
}

impl Tool for SendAgentMessage {
    fn name(&self) -> &'static str {
        "send_agent_message"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { target, message } = arguments_of(arguments)?;
        let message = message.trim();
        if message.is_empty() || message.len() > MESSAGE_BYTES_MAX {
            let length = message.len();
            return Err(ToolError::Invalid(format!(
                "message has {length} bytes, 1 to {MESSAGE_BYTES_MAX} fit"
            )));
        }
        let link = self.linked(&target)?;
        self.check_limit(link)?;
        let (agent, limit) = (link.agent.clone(), link.messages_per_hour);
        let (target, depth) = (agent.to_string(), self.depth + 1);
        let told = json!({ "delegated_to": target }).to_string();
        self.sent.push(agent);
        context.desk.tell(Effect::Delegate { target, message: message.to_owned(), depth, limit });
        Ok(told)
    }
}
