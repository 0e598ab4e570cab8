//! The profile: name, status and a few words about the agent, for whoever shows it. Taken from the identity
//! files, and put better by a model if the cortex has one; both only when those files have changed.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Wants, failed};
use crate::agent::AgentParts;
use crate::agent::job::Job;
use crate::agent::link::Link;
use crate::cortex::Profile;
use crate::db::DbError;
use crate::error::Kind;
use crate::event::{Errand, How};
use crate::prompts::Template;
use crate::text;

const NAME_BYTES: usize = 100;
const STATUS_BYTES: usize = 120;
const BIO_BYTES: usize = 600;

/// What the model gives.
#[derive(Deserialize)]
struct Given {
    display_name: String,
    status: String,
    bio: String,
}

/// Takes the profile from the identity files if they are others than before.
pub(super) fn refresh(parts: &AgentParts) -> Result<Wants, How> {
    let by_model = introduce(parts).map_err(|error| failed(&error))?;
    let wanted = !by_model && parts.cortex_has_model();
    Ok(if wanted { vec![(Errand::Profile, Duration::ZERO)] } else { Wants::new() })
}

/// As [`refresh`], at a start. True when the profile in force is by a model.
///
/// # Errors
/// The database cannot be read or written.
pub fn introduce(parts: &AgentParts) -> Result<bool, DbError> {
    let store = parts.cortex();
    let inputs = parts.prompts.identity_print().to_owned();
    let old = store.profile()?;
    let current = old.filter(|old| {
        old.inputs == inputs && (old.by_model || old.display_name == shortened(&parts.config.display_name))
    });
    match current {
        Some(profile) => Ok(profile.by_model),
        None => store.set_profile(taken(parts, inputs)).map(|()| false),
    }
}

fn shortened(name: &str) -> String {
    text::one_line(name, NAME_BYTES)
}

fn taken(parts: &AgentParts, inputs: String) -> Profile {
    let [_, identity, role] = parts.prompts.identity_texts();
    Profile {
        display_name: shortened(&parts.config.display_name),
        status: text::one_line(first_paragraph(role), STATUS_BYTES),
        bio: text::one_line(first_paragraph(identity), BIO_BYTES),
        by_model: false,
        inputs,
    }
}

/// The first lines that are no heading.
fn first_paragraph(markdown: &str) -> &str {
    let paragraphs = markdown.split("\n\n").map(str::trim);
    paragraphs
        .map(|paragraph| match paragraph.split_once('\n') {
            Some((heading, rest)) if heading.starts_with('#') => rest.trim(),
            _ => paragraph,
        })
        .find(|paragraph| !paragraph.is_empty() && !paragraph.starts_with('#'))
        .unwrap_or_default()
}

/// One call; what is no such object leaves the profile as it is.
pub(super) fn ask(parts: &AgentParts, job: &Job, link: &Link<'_>) -> Result<(), How> {
    let texts = parts.prompts.identity_texts();
    let words = texts.join("\n\n");
    let prompt = (Template::CortexProfile, json!({ "name": parts.config.display_name }));
    let answer = super::ask(parts, job, link, "profile", prompt, &words)?;
    let object = answer.find('{').zip(answer.rfind('}')).and_then(|(from, to)| answer.get(from..=to));
    let given: Given = object
        .and_then(|object| serde_json::from_str(object).ok())
        .ok_or_else(|| How::Failed(Kind::Transient, "the model gave no profile".to_owned()))?;
    let profile = Profile {
        display_name: shortened(&given.display_name),
        status: text::one_line(&given.status, STATUS_BYTES),
        bio: text::one_line(&given.bio, BIO_BYTES),
        by_model: true,
        inputs: parts.prompts.identity_print().to_owned(),
    };
    parts.cortex().set_profile(profile).map_err(|error| failed(&error))
}
