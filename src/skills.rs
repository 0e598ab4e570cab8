//! Skills: folders with a SKILL.md that tell a process how to do a kind of work. Their names and
//! descriptions stand in prompts, the rest is read when it is wanted. docs/SKILLS.md has the format and
//! who is trusted.

mod front_matter;
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Fault, Kind};

pub use place::{Place, Tier};

/// Skills that one place, and one agent, has at most: each costs its line in every prompt.
pub const SKILLS_MAX: usize = 64;
/// Longest SKILL.md, in bytes.
const SKILL_BYTES_MAX: u64 = 100 << 10;
/// Longest support file, in bytes.
const SUPPORT_BYTES_MAX: u64 = 1 << 20;
/// Longest name, in characters.
const NAME_CHARACTERS: usize = 64;
/// Of a description, in a prompt.
const DESCRIPTION_CHARACTERS: usize = 160;
/// The file that makes a folder a skill.
const SKILL_FILE: &str = "SKILL.md";

/// One skill as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    pub name: String,
    /// One line.
    pub description: String,
    /// Systems that it is for; empty: all.
    pub platforms: Vec<String>,
    pub tags: Vec<String>,
    pub related: Vec<String>,
    pub source_repo: Option<String>,
    /// What stands behind the front matter.
    pub body: String,
    place: Place,
    /// Its name in that place.
    folder: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {reason}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
pub struct SkillError {
    path: PathBuf,
    line: Option<usize>,
    reason: String,
    /// An older one is in force.
    kept: bool,
}

impl SkillError {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Fault for SkillError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
    fn hint(&self) -> Option<&str> {
        Some(if self.kept {
            "what was in force before stays until this is mended"
        } else {
            "nothing was in force before: it is left out until this is mended"
        })
    }
}

/// Why a file of a skill is not given.
#[derive(Debug, thiserror::Error)]
pub enum SkillFileError {
    #[error("the path must lie in the skill's folder, without `..` and hidden names")]
    Outside,
    #[error("there is no such file")]
    NotFound,
    #[error("{0}")]
    Unreadable(String),
}

impl Skill {
    pub fn tier(&self) -> Tier {
        self.place.tier()
    }

    /// Its SKILL.md.
    pub fn file(&self) -> PathBuf {
        self.place.path().join(&self.folder).join(SKILL_FILE)
    }

    /// What a prompt says of it.
    pub fn short_description(&self) -> String {
        if self.description.chars().count() <= DESCRIPTION_CHARACTERS {
            return self.description.clone();
        }
        let short: String = self.description.chars().take(DESCRIPTION_CHARACTERS - 1).collect();
        format!("{}…", short.trim_end())
    }

    pub fn fits_this_machine(&self) -> bool {
        self.platforms.is_empty() || self.platforms.iter().any(|name| is_system(name, std::env::consts::OS))
    }

    /// The files that it brings along, with their sizes in bytes.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.place.files(&self.folder)
    }

    /// One of them, as it is now.
    ///
    /// # Errors
    /// It lies elsewhere, is not there, or is no text of at most 1 MiB.
    pub fn read_file(&self, path: &str) -> Result<String, SkillFileError> {
        let path = Path::new(path.trim());
        if !place::is_plain(path) {
            return Err(SkillFileError::Outside);
        }
        self.place.read(&self.folder, path, SUPPORT_BYTES_MAX).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => SkillFileError::NotFound,
            _ => SkillFileError::Unreadable(error.to_string()),
        })
    }
}

/// The skills of one place, by their folders, as they are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shelf(BTreeMap<String, Arc<Skill>>);

impl Shelf {
    /// Reads the place again. What is wrong there leaves what was in force of that folder, and is told; a
    /// folder without a SKILL.md is no skill.
    pub fn read_again(&self, place: &Place) -> (Self, Vec<SkillError>) {
        let wrong = |path: PathBuf, reason: String, kept| SkillError { path, line: None, reason, kept };
        let (mut folders, more) = match place.folders() {
            Ok(None) => return (Self::default(), Vec::new()),
            Ok(Some(found)) => found,
            Err(error) => {
                let kept = !self.0.is_empty();
                return (self.clone(), vec![wrong(place.path(), error.to_string(), kept)]);
            }
        };
        let mut mistakes = Vec::new();
        if folders.len() > SKILLS_MAX || more {
            let left_out = folders.split_off(SKILLS_MAX.min(folders.len())).len();
            let reason = match more {
                true => "holds too many entries to look at all of them".to_owned(),
                false => format!("holds more than {SKILLS_MAX} skills; {left_out} are left out"),
            };
            mistakes.push(wrong(place.path(), reason, false));
        }
        let mut skills: BTreeMap<String, Arc<Skill>> = BTreeMap::new();
        // Those that are in force first, so that a new one cannot take their names.
        folders.sort_by_key(|folder| !self.0.contains_key(folder));
        for folder in folders {
            let known = self.0.get(&folder);
            let read = match read(place, &folder) {
                Ok(read) => read,
                Err(mistake) => {
                    mistakes.push(SkillError { kept: known.is_some(), ..mistake });
                    known.map(|known| Skill::clone(known))
                }
            };
            let Some(skill) = read else { continue };
            if let Some(other) = skills.values().find(|other| other.name == skill.name) {
                let reason = format!("the name {:?} is that of {} already", skill.name, other.folder);
                mistakes.push(wrong(skill.file(), reason, false));
                continue;
            }
            skills.insert(folder, Arc::new(skill));
        }
        (Self(skills), mistakes)
    }

    /// The files of those that differ from `other`, also if they are gone.
    pub fn changed_from(&self, other: &Self) -> Vec<PathBuf> {
        let gone = other.0.iter().filter(|(folder, _)| !self.0.contains_key(*folder));
        let new = self.0.iter().filter(|(folder, skill)| other.0.get(*folder) != Some(*skill));
        new.chain(gone).map(|(_, skill)| skill.file()).collect()
    }

    /// In the order of their folders.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Skill>> {
        self.0.values()
    }
}

/// The SKILL.md files of a place, whether they are good or not, for whoever watches them.
pub fn files(place: &Place) -> Vec<PathBuf> {
    let folders = place.folders().ok().flatten().map(|(folders, _)| folders).unwrap_or_default();
    folders.into_iter().take(SKILLS_MAX).map(|folder| place.path().join(folder).join(SKILL_FILE)).collect()
}

/// None: there is no SKILL.md.
fn read(place: &Place, folder: &str) -> Result<Option<Skill>, SkillError> {
    let path = || place.path().join(folder).join(SKILL_FILE);
    let text = match place.read(folder, Path::new(SKILL_FILE), SKILL_BYTES_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(SkillError { path: path(), line: None, reason: error.to_string(), kept: false });
        }
    };
    let wrong = |mistake: front_matter::Mistake| SkillError {
        path: path(),
        line: Some(mistake.line),
        reason: mistake.reason,
        kept: false,
    };
    skill(&text, place, folder).map(Some).map_err(wrong)
}

fn skill(text: &str, place: &Place, folder: &str) -> Result<Skill, front_matter::Mistake> {
    use front_matter::Mistake;
    let (matter, body) = front_matter::parse(text)?;
    let (line, name) = match matter.text("name") {
        Some((line, name)) => (*line, name.clone()),
        None => (1, folder.to_owned()),
    };
    if !is_name(&name) {
        let reason =
            format!("the name {name:?} must be 1 to {NAME_CHARACTERS} letters, digits, `-`, `_` and `.`");
        return Err(Mistake::at(line, reason));
    }
    let description = matter.text("description").map(|(_, text)| one_line(text)).unwrap_or_default();
    if description.is_empty() {
        return Err(Mistake::at(1, "`description` is needed: it says when the skill is read"));
    }
    let body = body.trim();
    if body.is_empty() {
        return Err(Mistake::at(1, "there is no text behind the front matter"));
    }
    let lines = |key: &str| matter.list(key).iter().map(|text| one_line(text)).collect();
    let mut platforms: Vec<String> = lines("platforms");
    if platforms.is_empty() {
        platforms = systems_of_openclaw(&matter.metadata());
    }
    Ok(Skill {
        name,
        description,
        platforms,
        tags: lines("tags"),
        related: lines("related_skills"),
        source_repo: matter.text("source_repo").map(|(_, text)| one_line(text)),
        body: body.to_owned(),
        place: place.clone(),
        folder: folder.to_owned(),
    })
}

fn is_name(name: &str) -> bool {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.len() <= NAME_CHARACTERS
        && name.chars().all(fits)
}

/// Without signs that would end a line, or show it otherwise than it is.
fn one_line(text: &str) -> String {
    let hidden = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = text.replace(hidden, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_system(name: &str, system: &str) -> bool {
    let name = name.to_lowercase();
    let name = match name.as_str() {
        "darwin" | "osx" | "mac" => "macos",
        "win32" | "win" => "windows",
        name => name,
    };
    name == system
}

/// `metadata.openclaw.os`
fn systems_of_openclaw(metadata: &serde_json::Value) -> Vec<String> {
    let list = ["openclaw", "clawdbot"].iter().find_map(|name| metadata[name]["os"].as_array());
    list.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// What an agent offers to its processes, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skills {
    offered: BTreeMap<String, Arc<Skill>>,
    left_out: usize,
}

impl Skills {
    /// A skill of the workspace takes the place of one of the same name; those for other systems are not
    /// there. Where there are too many, those of the workspace are left out.
    pub fn of(instance: &Shelf, workspace: &Shelf) -> Self {
        let mut skills = Self::default();
        for skill in instance.iter().chain(workspace.iter()).filter(|skill| skill.fits_this_machine()) {
            if skills.offered.len() < SKILLS_MAX || skills.offered.contains_key(&skill.name) {
                skills.offered.insert(skill.name.clone(), skill.clone());
            } else {
                skills.left_out += 1;
            }
        }
        skills
    }

    pub fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Skill>> {
        self.offered.get(name)
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Skill>> {
        self.offered.values()
    }

    /// How many there was no room for.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Some lie where workers write.
    pub fn has_any_of_workspace(&self) -> bool {
        self.iter().any(|skill| skill.tier() == Tier::Workspace)
    }
}

#[cfg(test)]
mod tests;
