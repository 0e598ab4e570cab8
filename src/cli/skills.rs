//! `spacebot skills`: what lies in the folders of skills, what is offered of it, and what is wrong with the
//! rest. It reads the files as they are; a running daemon may have older ones in force.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;

use super::chat::printable;
use crate::config::Config;
use crate::error::{Fault, Kind, log_line};
use crate::skills::{Place, Shelf, Skill, Skills, Tier};

#[derive(Debug, thiserror::Error)]
pub enum SkillsError {
    #[error("there is no agent {0:?} in the config")]
    UnknownAgent(String),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl Fault for SkillsError {
    fn kind(&self) -> Kind {
        match self {
            SkillsError::UnknownAgent(_) => Kind::NotFound,
            SkillsError::Output(_) => Kind::Invalid,
        }
    }
}

/// Prints them; false when something is wrong with one that is to be offered.
///
/// # Errors
/// There is no such agent, or nothing can be written.
pub fn run(config: &Config, agent: Option<&str>, as_json: bool) -> Result<bool, SkillsError> {
    let unknown = || SkillsError::UnknownAgent(agent.unwrap_or_default().to_owned());
    let agent = config.agent(agent).ok_or_else(unknown)?;
    let workspace = config.data_folder.join("agents").join(agent.id.as_str()).join("workspace");
    let places = [Place::instance(&config.data_folder), Place::workspace(&workspace)];
    let [(instance, mut mistakes), (own, of_workspace)] =
        places.each_ref().map(|place| Shelf::default().read_again(place));
    let none = Shelf::default();
    let skills = Skills::of(&instance, if agent.skills.workspace { &own } else { &none });
    let is_good = mistakes.is_empty() && (!agent.skills.workspace || of_workspace.is_empty());
    mistakes.extend(of_workspace);
    let mut out = BufWriter::new(io::stdout().lock());
    for skill in instance.iter().chain(own.iter()) {
        let state = state(skill, &skills, agent.skills.workspace);
        if as_json { tell_json(skill, state, &mut out)? } else { tell(skill, state, &mut out)? }
    }
    for mistake in &mistakes {
        if as_json {
            writeln!(
                out,
                "{}",
                json!({ "file": shown(mistake.path()), "state": "bad", "reason": mistake.to_string() })
            )?;
        } else {
            writeln!(out, "bad: {}", printable(&log_line(mistake)))?;
        }
    }
    if !as_json {
        for (place, offered) in places.iter().zip([true, agent.skills.workspace]) {
            let words = if offered { "" } else { " (agents.skills.workspace is false)" };
            writeln!(out, "{:<9} {}{words}", place.tier().as_str(), printable(&shown(&place.path())))?;
        }
    }
    out.flush()?;
    Ok(is_good)
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn state(skill: &Skill, skills: &Skills, workspace: bool) -> &'static str {
    match skills.find(&skill.name) {
        _ if skill.tier() == Tier::Workspace && !workspace => "not offered",
        _ if !skill.fits_this_machine() => "other system",
        Some(offered) if **offered == *skill => "offered",
        Some(_) => "shadowed",
        None => "too many",
    }
}

fn tell(skill: &Skill, state: &str, out: &mut impl Write) -> io::Result<()> {
    let (name, tier) = (printable(&skill.name), skill.tier().as_str());
    writeln!(out, "{name:<24} {tier:<9} {state:<12} {}", printable(&skill.short_description()))?;
    let lists = [("for", &skill.platforms), ("tags", &skill.tags), ("related", &skill.related)];
    for (what, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        writeln!(out, "  {what}: {}", printable(&list.join(", ")))?;
    }
    if let Some(source) = &skill.source_repo {
        writeln!(out, "  from: {}", printable(source))?;
    }
    writeln!(
        out,
        "  {}, {} bytes, {} more files",
        printable(&shown(&skill.file())),
        skill.body.len(),
        skill.files().len()
    )
}

fn tell_json(skill: &Skill, state: &str, out: &mut impl Write) -> io::Result<()> {
    let line = json!({
        "name": skill.name,
        "description": skill.description,
        "tier": skill.tier().as_str(),
        "state": state,
        "file": shown(&skill.file()),
        "platforms": skill.platforms,
        "tags": skill.tags,
        "related_skills": skill.related,
        "source_repo": skill.source_repo,
        "bytes": skill.body.len(),
        "files": skill.files().into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
    });
    writeln!(out, "{line}")
}
