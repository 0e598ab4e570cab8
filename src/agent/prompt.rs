//! The system prompts of one agent: rendered once, the same bytes for every turn (P9). The order is
//! identity, bulletin, base instructions, worker capabilities, conversation context; what changes from turn to
//! turn is in the last message instead.

use std::path::Path;
use std::sync::Arc;

use rig_core::completion::Message;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{compactor, company};
use crate::config::{AgentConfig, Delegation, SandboxMode};
use crate::conversation::{Line, Place, Role, Summary};
use crate::identity::Identity;
use crate::prompts::{self, OverrideError, Overrides, PromptError, Template};
use crate::skills::{Skills, Tier};
use crate::turn::{self, Part};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPrompts {
    /// In front of the bulletin and behind it.
    channel: [Arc<str>; 2],
    identity: [Arc<str>; 3],
    identity_print: Arc<str>,
    branch: Arc<str>,
    worker: Arc<str>,
    ingestion: Arc<str>,
    scheduled: Arc<str>,
    skills: Arc<Skills>,
    skills_of_cortex: Arc<str>,
}

impl AgentPrompts {
    /// The built-in templates with the values of one agent.
    ///
    /// # Errors
    /// A template does not render; the tests would have shown it.
    pub fn new(config: &AgentConfig, identity: &Identity, workspace: &str) -> Result<Self, PromptError> {
        Self::with(config, identity, workspace, &Overrides::default(), Skills::default())
    }

    /// With the operator's own templates where there are some, and with the names of the skills at their
    /// ends.
    ///
    /// # Errors
    /// A template does not render with these values.
    pub fn with(
        config: &AgentConfig,
        identity: &Identity,
        workspace: &str,
        overrides: &Overrides,
        skills: Skills,
    ) -> Result<Self, PromptError> {
        let context = context(config, identity, workspace);
        let [channel_skills, branch_skills, worker_skills] =
            [skill_list(&skills, "channel")?, skill_list(&skills, "branch")?, skill_list(&skills, "worker")?];
        let texts = [identity.soul.as_str(), &identity.identity, &identity.role];
        let channel =
            overrides.render(Template::Channel, &context)? + &company::text(config)? + &channel_skills;
        Ok(Self {
            channel: around_bulletin(&channel).map(Arc::from),
            identity: texts.map(Arc::from),
            identity_print: print_of(&texts).into(),
            branch: (overrides.render(Template::Branch, &context)? + &branch_skills).into(),
            worker: (overrides.render(Template::Worker, &context)? + &worker_skills).into(),
            ingestion: overrides.render(Template::Ingestion, &context)?.into(),
            scheduled: (overrides.render(Template::Scheduled, &context)? + &channel_skills).into(),
            skills: Arc::new(skills),
            skills_of_cortex: branch_skills.into(),
        })
    }

    /// Reads the operator's templates and tries each with the values of this agent. One that does not
    /// render leaves what `old` has in force, and is told.
    pub fn overrides(
        config: &AgentConfig,
        identity: &Identity,
        workspace: &str,
        folder: &Path,
        old: &Overrides,
    ) -> (Overrides, Vec<OverrideError>) {
        old.read_again(folder, &context(config, identity, workspace))
    }

    /// The channel's prompt with its conversation at the end: as stable as the conversation's name, who acts in
    /// it, and what is known (`bulletin`).
    pub(super) fn channel(
        &self,
        place: &Place,
        delegation: Delegation,
        bulletin: Option<&str>,
    ) -> Result<String, PromptError> {
        let context = json!({
            "platform": place.instance.platform(),
            "name": place.name,
            "conversation": place.conversation.as_str(),
            "direct": place.direct,
            "acts": delegation == Delegation::Direct,
        });
        let briefing = match bulletin {
            Some(bulletin) => prompts::render(Template::Briefing, &json!({ "bulletin": bulletin }))?,
            None => String::new(),
        };
        let conversation = prompts::render(Template::ConversationContext, &context)?;
        let [before, after] = &self.channel;
        let parts = [before, briefing.as_str(), after, conversation.as_str()];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n"))
    }

    /// Soul, identity and role as they are in force.
    pub(super) fn identity_texts(&self) -> [&str; 3] {
        [&self.identity[0], &self.identity[1], &self.identity[2]]
    }

    /// Another one for other identity files.
    pub(super) fn identity_print(&self) -> &str {
        &self.identity_print
    }

    /// What a process that starts now is offered.
    pub(super) fn skills(&self) -> &Arc<Skills> {
        &self.skills
    }

    /// For the end of the cortex's prompt in a talk with the operator.
    pub(super) fn skills_of_cortex(&self) -> &str {
        &self.skills_of_cortex
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

/// The skills for the end of a stable prompt; empty where there are none.
fn skill_list(skills: &Skills, reader: &str) -> Result<String, PromptError> {
    if skills.is_empty() {
        return Ok(String::new());
    }
    let lines = |tier: Tier| -> Vec<_> {
        let listed = skills.iter().filter(|skill| skill.tier() == tier);
        listed.map(|skill| json!({ "name": skill.name, "description": skill.short_description() })).collect()
    };
    let context =
        json!({ "reader": reader, "own": lines(Tier::Instance), "workspace": lines(Tier::Workspace) });
    Ok(format!("\n\n{}", prompts::render(Template::Skills, &context)?))
}

/// A summary as the model reads it; the same bytes in every turn.
pub(super) fn summary(summary: &Summary) -> Message {
    Message::user(turn::write(&[compactor::fenced(summary)]))
}

/// Stands where a template of the channel wants the bulletin; no text has it by itself.
const BULLETIN: &str = "\u{1}bulletin\u{1}";

/// The two parts of a channel's prompt that the bulletin stands between; an own template that does not name
/// it has it at its end.
fn around_bulletin(prompt: &str) -> [&str; 2] {
    let (before, after) = prompt.split_once(BULLETIN).unwrap_or((prompt, ""));
    [before.trim_end(), after.trim_start()]
}

fn print_of(texts: &[&str]) -> String {
    // Lengths first, so that no two lists read alike.
    let lengths: Vec<_> = texts.iter().map(|text| text.len().to_string()).collect();
    let all = format!("{} {}", lengths.join(" "), texts.concat());
    let hash = digest(&SHA256, all.as_bytes());
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// What templates can name.
fn context(config: &AgentConfig, identity: &Identity, workspace: &str) -> Value {
    json!({
        "name": config.display_name,
        "soul": identity.soul,
        "identity": identity.identity,
        "role": identity.role,
        "workspace": workspace,
        "bulletin": BULLETIN,
        "sandboxed": config.sandbox.mode == SandboxMode::Enabled,
        "network": config.sandbox.network,
        "task_types": config.routing.task_overrides.keys().collect::<Vec<_>>(),
        "max_turns": config.limits.branch_max_turns,
        "ingestion_turns": super::ingestion::TURNS,
    })
}

/// A stored line as the model reads it; the same bytes in every turn.
pub(super) fn line(line: &Line) -> Message {
    match line.role {
        Role::Assistant => Message::assistant(&line.content),
        Role::Event | Role::Earlier => Message::user(&line.content),
        Role::User => Message::user(turn::write(&[Part::Said {
            sender: line.sender_name.clone(),
            at: line.at,
            text: line.content.clone(),
        }])),
    }
}

#[cfg(test)]
mod tests {
    use rig_core::message::{AssistantContent, UserContent};

    use super::*;
    use crate::clock::Timestamp;

    /// So a window may be cut between any two lines.
    #[test]
    fn no_line_of_the_history_is_a_tool_call_or_its_result() {
        for role in [Role::User, Role::Assistant, Role::Event, Role::Earlier] {
            let content = "<result process=\"branch:1\" task=\"t\">{\"tool_calls\": []}</result>".to_owned();
            let stored = Line { id: 1, role, sender_name: "una".to_owned(), content, at: Timestamp(0) };
            let plain = match line(&stored) {
                Message::User { content } => content.iter().all(|part| matches!(part, UserContent::Text(_))),
                Message::Assistant(said) => {
                    said.content.iter().all(|part| matches!(part, AssistantContent::Text(_)))
                }
                Message::System { .. } => false,
            };
            assert!(plain, "{role:?}");
        }
    }
}
