//! `[[humans]]`: people that the agents know, and by which senders they are recognised.

use std::fmt::Write;

use super::section::Section;
use crate::id::InstanceId;

/// People of one daemon; each of them stands in the prompt of every channel.
const MAX_HUMANS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanConfig {
    pub id: String,
    pub name: String,
    pub role: String,
    pub description: String,
    /// Senders that are this person: `<instance>:<sender>`, such as `irc:libera:una`.
    pub platform_ids: Vec<String>,
    /// What `humans/<id>.md` in the data folder says; read with the identity files.
    pub profile: String,
}

impl HumanConfig {
    pub fn is(&self, instance: &InstanceId, sender: &str) -> bool {
        let rest = |id: &String| {
            id.strip_prefix(instance.as_str()).and_then(|rest| rest.strip_prefix(':')).map(str::to_owned)
        };
        self.platform_ids.iter().filter_map(rest).any(|known| known == sender)
    }

    pub(super) fn read_all(root: &Section<'_, '_>) -> Vec<Self> {
        let mut humans: Vec<Self> = Vec::new();
        for section in root.tables("humans") {
            let id = section.name("id").unwrap_or_default();
            // The id is a file name.
            let plain = |character: char| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_')
            };
            if id.is_empty() || id.len() > 32 || !id.chars().all(plain) {
                section.refuse("id", "must be 1 to 32 of a-z, 0-9, - and _");
            } else if humans.iter().any(|known| known.id == id) {
                section.refuse("id", "is used by another human");
            }
            if humans.len() == MAX_HUMANS {
                section.refuse("id", format!("is one human more than {MAX_HUMANS}"));
            }
            let platform_ids = section.texts("platform_ids").unwrap_or_default();
            if platform_ids
                .iter()
                .any(|id| id.split_once(':').is_none_or(|(one, two)| one.is_empty() || two.is_empty()))
            {
                section.refuse("platform_ids", "must be like \"irc:libera:una\" or \"webhook:una\"");
            }
            let taken = |id: &String| {
                humans.iter().any(|known| known.platform_ids.contains(id))
                    || platform_ids.iter().filter(|other| *other == id).count() > 1
            };
            if let Some(id) = platform_ids.iter().find(|id| taken(id)) {
                section.refuse("platform_ids", format!("{id:?} is named twice"));
            }
            humans.push(Self {
                name: section.name("name").unwrap_or_else(|| id.clone()),
                role: section.text("role").unwrap_or_default(),
                description: section.text("description").unwrap_or_default(),
                id,
                platform_ids,
                profile: String::new(),
            });
            section.finish();
        }
        humans
    }

    pub(super) fn write(&self, out: &mut String, text: fn(&str) -> String) -> std::fmt::Result {
        writeln!(out, "\n[[humans]]\nid = {}\nname = {}", text(&self.id), text(&self.name))?;
        writeln!(out, "role = {}\ndescription = {}", text(&self.role), text(&self.description))?;
        let ids: Vec<_> = self.platform_ids.iter().map(|id| text(id)).collect();
        writeln!(out, "platform_ids = [{}]", ids.join(", "))
    }
}
