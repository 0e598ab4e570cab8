//! All text that a model or a chat user reads, from `prompts/en/`, embedded in the binary.

mod overrides;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::error::{Fault, Kind};

pub use overrides::{OverrideError, Overrides};

/// Templates with placeholders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    Scheduled,
    Channel,
    Branch,
    Worker,
    Ingestion,
    ConversationContext,
    Status,
    Recent,
    /// Events that a model is to put together, and what asks it to.
    Happened,
    CortexIntraday,
    CortexDaily,
    /// In front of messages that came together.
    Batch,
    People,
    /// What was said before a conversation began.
    Earlier,
    /// What a worker reads of its task.
    Task,
    /// Other agents and people that a channel knows.
    Links,
    Humans,
    /// Names of the skills, and what they are for.
    Skills,
    Compactor,
    Extraction,
    /// What an agent knows, without a model.
    Bulletin,
    /// Around it in the channel's prompt.
    Briefing,
    /// Asks a model to put it into words.
    CortexBulletin,
    CortexProfile,
    CortexChat,
    /// Results of workers, as they are.
    CortexResults,
    /// What a command says, by the command's name.
    Command(&'static str),
}

macro_rules! commands {
    ($($name:literal),* $(,)?) => {
        [$((
            Template::Command($name),
            concat!("commands/", $name),
            include_str!(concat!("../prompts/en/commands/", $name, ".md.j2")),
        )),*]
    };
}

const COMMANDS: [(Template, &str, &str); 9] =
    commands!["help", "status", "tasks", "approve", "today", "digest", "whoami", "agent_id", "mode"];

const TEMPLATES: [(Template, &str, &str); 26] = [
    (Template::Channel, "channel", include_str!("../prompts/en/channel.md.j2")),
    (Template::Branch, "branch", include_str!("../prompts/en/branch.md.j2")),
    (Template::Scheduled, "scheduled", include_str!("../prompts/en/scheduled.md.j2")),
    (Template::Worker, "worker", include_str!("../prompts/en/worker.md.j2")),
    (Template::Ingestion, "ingestion", include_str!("../prompts/en/ingestion.md.j2")),
    (
        Template::ConversationContext,
        "conversation_context",
        include_str!("../prompts/en/fragments/conversation_context.md.j2"),
    ),
    (Template::Status, "status", include_str!("../prompts/en/fragments/status.md.j2")),
    (Template::Recent, "recent", include_str!("../prompts/en/fragments/recent.md.j2")),
    (Template::Happened, "happened", include_str!("../prompts/en/fragments/happened.md.j2")),
    (Template::CortexIntraday, "cortex_intraday", include_str!("../prompts/en/cortex_intraday.md.j2")),
    (Template::CortexDaily, "cortex_daily", include_str!("../prompts/en/cortex_daily.md.j2")),
    (Template::Batch, "batch", include_str!("../prompts/en/fragments/batch.md.j2")),
    (Template::People, "people", include_str!("../prompts/en/fragments/people.md.j2")),
    (Template::Earlier, "earlier", include_str!("../prompts/en/fragments/earlier.md.j2")),
    (Template::Links, "links", include_str!("../prompts/en/fragments/links.md.j2")),
    (Template::Humans, "humans", include_str!("../prompts/en/fragments/humans.md.j2")),
    (Template::Skills, "skills", include_str!("../prompts/en/fragments/skills.md.j2")),
    (Template::Task, "task", include_str!("../prompts/en/task.md.j2")),
    (Template::Compactor, "compactor", include_str!("../prompts/en/compactor.md.j2")),
    (Template::Extraction, "extraction", include_str!("../prompts/en/extraction.md.j2")),
    (Template::Bulletin, "bulletin", include_str!("../prompts/en/fragments/bulletin.md.j2")),
    (Template::Briefing, "briefing", include_str!("../prompts/en/fragments/briefing.md.j2")),
    (Template::CortexBulletin, "cortex_bulletin", include_str!("../prompts/en/cortex_bulletin.md.j2")),
    (Template::CortexChat, "cortex_chat", include_str!("../prompts/en/cortex_chat.md.j2")),
    (Template::CortexResults, "cortex_results", include_str!("../prompts/en/fragments/cortex_results.md.j2")),
    (Template::CortexProfile, "cortex_profile", include_str!("../prompts/en/cortex_profile.md.j2")),
];

fn templates() -> impl Iterator<Item = (Template, &'static str, &'static str)> {
    TEMPLATES.into_iter().chain(COMMANDS)
}

macro_rules! tool_descriptions {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../prompts/en/tools/", $name, ".md")))),*]
    };
}

const TOOLS: &[(&str, &str)] = tool_descriptions![
    "branch",
    "cancel",
    "channel_recall",
    "cron",
    "file_edit",
    "file_list",
    "file_read",
    "file_write",
    "memory_decide",
    "memory_delete",
    "memory_persistence_complete",
    "memory_proposals",
    "memory_recall",
    "memory_save",
    "react",
    "read_skill",
    "reply",
    "route",
    "send_agent_message",
    "set_outcome",
    "set_status",
    "shell",
    "skip",
    "spawn_worker",
    "task_create",
    "task_list",
    "task_update",
    "worker_inspect",
];

#[derive(Debug, thiserror::Error)]
#[error("prompt template: {0}")]
pub struct PromptError(#[from] minijinja::Error);

impl Fault for PromptError {
    fn kind(&self) -> Kind {
        Kind::Bug
    }
}

/// Renders a template; a placeholder without a value is an error.
///
/// # Errors
/// The template and the context do not fit.
pub fn render(template: Template, context: &impl Serialize) -> Result<String, PromptError> {
    let rendered = environment().get_template(name_of(template))?.render(minijinja::value::Serde(context))?;
    Ok(rendered.trim().to_owned())
}

fn name_of(template: Template) -> &'static str {
    templates().find(|(known, _, _)| *known == template).map_or("", |(_, name, _)| name)
}

fn environment() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (_, name, text) in templates() {
            if let Err(error) = environment.add_template(name, text) {
                log::error!("template {name}: {error}");
            }
        }
        environment
    })
}

/// What the model reads about a tool; empty for an unknown one, which the tests exclude.
pub fn tool_description(name: &str) -> &'static str {
    TOOLS.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text.trim())
}

/// A plain sentence from `prompts/en/notices.toml`; empty for an unknown key, which the tests exclude.
pub fn notice(key: &str) -> &'static str {
    static NOTICES: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let notices = NOTICES.get_or_init(|| match toml::from_str(include_str!("../prompts/en/notices.toml")) {
        Ok(notices) => notices,
        Err(error) => {
            log::error!("prompts/en/notices.toml: {error}");
            BTreeMap::new()
        }
    });
    notices.get(key).map_or("", |text| text.trim())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_sentence() {
        let kinds = [
            Kind::Transient,
            Kind::RateLimited,
            Kind::Auth,
            Kind::Invalid,
            Kind::NotFound,
            Kind::Full,
            Kind::Budget,
            Kind::Cancelled,
            Kind::Bug,
        ];
        for kind in kinds {
            assert!(!notice(kind.notice()).is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn every_notice_that_the_code_names_exists() {
        let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut found = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(
                    std::fs::read_dir(&path).expect("folder").map(|entry| entry.expect("entry").path()),
                );
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("source");
            for call in text.split("notice(\"").skip(1) {
                let key = call.split('"').next().unwrap_or_default();
                assert!(!notice(key).is_empty(), "{}: notice {key:?}", path.display());
                found += 1;
            }
        }
        assert!(found > 10);
    }

    #[test]
    fn templates_parse_and_tools_are_described() {
        for (_, name, _) in templates() {
            environment().get_template(name).expect("parses");
        }
        for (name, text) in TOOLS {
            assert!(text.trim().len() > 20, "{name}");
        }
        assert!(render(Template::Status, &serde_json::json!({})).is_err(), "missing values are noticed");
    }
}
