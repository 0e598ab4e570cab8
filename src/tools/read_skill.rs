//! `read_skill`: the text of a skill, or of a file that it brings along, part by part.

use std::fmt::Write as _;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{MAX_TOOL_OUTPUT_BYTES, Tool, ToolContext, ToolError, arguments_of, number, schema_of};
use crate::prompts;
use crate::skills::{Skill, SkillFileError, Skills, Tier};
use crate::text;

/// Longest line that is given whole, in bytes.
const LINE_BYTES_MAX: usize = 16_000;
/// Room for what stands before and behind the text.
const FRAME_BYTES: usize = 10_000;
/// The longest name of a file that is listed, in bytes.
const FILE_NAME_BYTES: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// Name of the skill, as it is listed.
    name: String,
    /// One of its files, such as references/api.md; without it the skill itself.
    #[serde(default)]
    file: Option<String>,
    /// First line, from 1 (1).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    offset: Option<usize>,
}

/// The skills are those that the process saw listed at its start.
pub struct ReadSkill(Arc<Skills>);

impl ReadSkill {
    pub fn new(skills: Arc<Skills>) -> Self {
        Self(skills)
    }
}

impl Tool for ReadSkill {
    fn name(&self) -> &'static str {
        "read_skill"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    /// Which one was read is not known any more to a run that goes on after a restart.
    fn reads_outside(&self) -> bool {
        self.0.has_any_of_workspace()
    }

    fn call(&mut self, arguments: Value, _: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { name, file, offset } = arguments_of(arguments)?;
        let (name, file) = match (name.trim().split_once('/'), file) {
            // `skill/file`, as it is written elsewhere.
            (Some((name, file)), None) => (name.to_owned(), Some(file.to_owned())),
            (_, file) => (name.trim().to_owned(), file.filter(|file| !file.trim().is_empty())),
        };
        let skill = find(&self.0, &name)?;
        let (head, words) = match &file {
            None => (about(skill), skill.body.clone()),
            Some(file) => {
                let words = skill.read_file(file).map_err(|error| refused(skill, file, &error))?;
                (format!("[{} of the skill {name}]\n", text::one_line(file, FILE_NAME_BYTES)), words)
            }
        };
        let trust = match skill.tier() {
            Tier::Instance => String::new(),
            Tier::Workspace => format!("[{}]\n", prompts::notice("skill_of_workspace")),
        };
        Ok(format!("{head}{trust}{}", part(&words, offset.unwrap_or(1).max(1))))
    }
}

/// # Errors
/// In words for the model, with the names that there are.
pub(super) fn find<'a>(skills: &'a Skills, name: &str) -> Result<&'a Arc<Skill>, ToolError> {
    skills.find(name).ok_or_else(|| {
        let names: Vec<_> = skills.iter().map(|skill| skill.name.as_str()).collect();
        ToolError::NotFound(format!("there is no skill {name:?}; there are {}", names.join(", ")))
    })
}

fn refused(skill: &Skill, file: &str, error: &SkillFileError) -> ToolError {
    let words = format!("{file} of {}: {error}", skill.name);
    match error {
        SkillFileError::Outside => ToolError::Denied(words),
        SkillFileError::NotFound => ToolError::NotFound(words),
        SkillFileError::Unreadable(_) => ToolError::Failed(words),
    }
}

/// What goes with it.
fn about(skill: &Skill) -> String {
    let mut head = format!("[skill {}]\n", skill.name);
    if !skill.related.is_empty() {
        // Writing to a String cannot fail.
        writeln!(head, "[related: {}]", skill.related.join(", ")).ok();
    }
    let file = |(name, bytes): &(String, u64)| format!("{} ({bytes})", text::one_line(name, FILE_NAME_BYTES));
    let files: Vec<_> = skill.files().iter().map(file).collect();
    if !files.is_empty() {
        writeln!(head, "[files, with their bytes: {}]", files.join(", ")).ok();
    }
    text::shorten(&head, FRAME_BYTES - 1000).into_owned()
}

/// The lines from `first` on that have room.
fn part(words: &str, first: usize) -> String {
    let mut out = String::new();
    for (line, at) in words.lines().zip(1_usize..).skip(first - 1) {
        let line = text::shorten(line, LINE_BYTES_MAX);
        if out.len() + line.len() + FRAME_BYTES > MAX_TOOL_OUTPUT_BYTES {
            out.push_str(&format!("[more from line {at} on; use offset]\n"));
            return out;
        }
        out.push_str(&line);
        out.push('\n');
    }
    if out.is_empty() { format!("[it has {} lines]", words.lines().count()) } else { out }
}
