//! Whom an agent knows, for the stable part of its channel's prompt: linked agents, and people.

use serde_json::json;

use crate::config::{AgentConfig, HumanConfig};
use crate::prompts::{self, PromptError, Template};
use crate::text;

/// Longest text about one person, in characters.
const HUMAN_CHARACTERS: usize = 4000;
/// Longest role, in bytes: a line.
const ROLE_BYTES: usize = 200;

/// Empty where nobody is known.
pub(super) fn text(config: &AgentConfig) -> Result<String, PromptError> {
    let mut text = String::new();
    if !config.links.is_empty() {
        let link = |link: &crate::config::LinkedAgent| {
            json!({
                "id": link.agent.as_str(), "name": link.display_name, "relation": link.relation.as_str(),
                "may_ask": link.may_ask, "may_be_asked": link.may_be_asked,
            })
        };
        let may_ask = config.links.iter().any(|link| link.may_ask);
        let links: Vec<_> = config.links.iter().map(link).collect();
        text.push_str("\n\n");
        text.push_str(&prompts::render(Template::Links, &json!({ "links": links, "may_ask": may_ask }))?);
    }
    if !config.humans.is_empty() {
        let humans: Vec<_> = config.humans.iter().map(human).collect();
        text.push_str("\n\n");
        text.push_str(&prompts::render(Template::Humans, &json!({ "humans": humans }))?);
    }
    Ok(text)
}

/// What the operator has written about a person.
pub(super) fn profile(human: &HumanConfig) -> String {
    let about = [human.description.trim(), human.profile.trim()];
    let about: Vec<_> = about.into_iter().filter(|part| !part.is_empty()).collect();
    about.join("\n\n")
}

fn human(human: &HumanConfig) -> serde_json::Value {
    json!({
        "name": human.name,
        "role": text::one_line(&human.role, ROLE_BYTES),
        "text": profile(human).chars().take(HUMAN_CHARACTERS).collect::<String>(),
    })
}
