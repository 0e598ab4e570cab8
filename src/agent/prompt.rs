//! The system prompts of one agent: rendered once, the same bytes for every turn (P9). The order is
//! identity, base instructions, worker capabilities, conversation context; what changes from turn to
//! turn is in the last message instead.

use std::sync::Arc;

use rig_core::completion::Message;
use serde_json::json;

use crate::config::{AgentConfig, SandboxMode};
use crate::conversation::{Line, Place, Role};
use crate::identity::Identity;
use crate::prompts::{self, PromptError, Template};
use crate::turn::{self, Part};

pub struct AgentPrompts {
    channel: Arc<str>,
    branch: Arc<str>,
    worker: Arc<str>,
    ingestion: Arc<str>,
    scheduled: Arc<str>,
}

impl AgentPrompts {
    /// # Errors
    /// A template does not render; the tests would have shown it.
    pub fn new(config: &AgentConfig, identity: &Identity, workspace: &str) -> Result<Self, PromptError> {
        let context = json!({
            "name": config.display_name,
            "soul": identity.soul,
            "identity": identity.identity,
            "role": identity.role,
            "workspace": workspace,
            "sandboxed": config.sandbox.mode == SandboxMode::Enabled,
            "network": config.sandbox.network,
            "max_turns": config.limits.branch_max_turns,
            "ingestion_turns": super::ingestion::TURNS,
        });
        Ok(Self {
            channel: prompts::render(Template::Channel, &context)?.into(),
            branch: prompts::render(Template::Branch, &context)?.into(),
            worker: prompts::render(Template::Worker, &context)?.into(),
            ingestion: prompts::render(Template::Ingestion, &context)?.into(),
            scheduled: prompts::render(Template::Scheduled, &context)?.into(),
        })
    }

    /// The channel's prompt with its conversation at the end: as stable as the conversation's name.
    pub(super) fn channel(&self, place: &Place) -> Result<String, PromptError> {
        let context = json!({
            "platform": place.instance.platform(),
            "name": place.name,
            "conversation": place.conversation.as_str(),
            "direct": place.direct,
        });
        Ok(format!("{}\n\n{}", self.channel, prompts::render(Template::ConversationContext, &context)?))
    }

    pub(super) fn branch(&self) -> String {
        self.branch.to_string()
    }

    /// Of the channel in which a job runs.
    pub(super) fn scheduled(&self) -> String {
        self.scheduled.to_string()
    }

    pub(super) fn worker(&self) -> String {
        self.worker.to_string()
    }

    pub(super) fn ingestion(&self) -> String {
        self.ingestion.to_string()
    }
}

/// A stored line as the model reads it; the same bytes in every turn.
pub(super) fn line(line: &Line) -> Message {
    match line.role {
        Role::Assistant => Message::assistant(&line.content),
        Role::Event => Message::user(&line.content),
        Role::User => Message::user(turn::write(&[Part::Said {
            sender: line.sender_name.clone(),
            at: line.at,
            text: line.content.clone(),
        }])),
    }
}
