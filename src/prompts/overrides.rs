//! Templates that the operator put in the place of built-in ones: `<prompt>.md.j2` in a folder of the
//! agent, outside of its workspace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use super::{PromptError, TEMPLATES, Template, name_of, render};
use crate::error::{Fault, Kind};

/// What has a place in the stable prefix. Fragments are not here: they hold the fences between what
/// people say and what the system says.
const PROMPTS: [Template; 5] =
    [Template::Channel, Template::Branch, Template::Worker, Template::Ingestion, Template::Scheduled];
const SUFFIX: &str = ".md.j2";
/// Longest template, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Entries of the folder that are looked at for misspelt names.
const ENTRIES_MAX: usize = 256;

/// By the name of the template that each replaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<&'static str, String>);

#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct OverrideError {
    path: PathBuf,
    reason: String,
    hint: String,
}

impl Fault for OverrideError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
    fn hint(&self) -> Option<&str> {
        Some(&self.hint)
    }
}

impl Overrides {
    /// The operator's template, else the built-in one.
    ///
    /// # Errors
    /// The template and the context do not fit.
    pub fn render(&self, template: Template, context: &impl Serialize) -> Result<String, PromptError> {
        match self.0.get(name_of(template)) {
            Some(text) => own(name_of(template), text, context),
            None => render(template, context),
        }
    }

    /// The names of those that differ from `other`.
    pub fn changed_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static str> {
        let names = PROMPTS.into_iter().map(name_of);
        names.filter(|name| self.0.get(name) != other.0.get(name))
    }

    /// Reads `folder`, which need not be there. What cannot be read or does not render with `context`
    /// keeps its old template, and is told.
    pub fn read_again(&self, folder: &Path, context: &impl Serialize) -> (Self, Vec<OverrideError>) {
        let (mut new, mut mistakes) = (BTreeMap::new(), misspelt(folder));
        for name in PROMPTS.map(name_of) {
            let path = folder.join(format!("{name}{SUFFIX}"));
            let tried = read(&path).and_then(|text| match &text {
                Some(template) => {
                    own(name, template, context).map(|_| text).map_err(|error| error.to_string())
                }
                None => Ok(None),
            });
            let text = tried.unwrap_or_else(|reason| {
                let hint =
                    "the prompt that was in force stays; the built-in ones show what can be named".to_owned();
                mistakes.push(OverrideError { path, reason, hint });
                self.0.get(name).cloned()
            });
            new.extend(text.map(|text| (name, text)));
        }
        (Self(new), mistakes)
    }
}

fn own(name: &str, text: &str, context: &impl Serialize) -> Result<String, PromptError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let rendered = environment.render_named_str(name, text, minijinja::value::Serde(context))?;
    Ok(rendered.trim().to_owned())
}

/// None: there is no such file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let is_file = match fs::metadata(path) {
        Ok(metadata) => metadata.is_file(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error.to_string()),
    };
    if !is_file {
        return Err("is no regular file".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(Some(text))
}

/// Files that look like templates and replace nothing.
fn misspelt(folder: &Path) -> Vec<OverrideError> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let stem = |path: &Path| path.file_name()?.to_str()?.strip_suffix(SUFFIX).map(str::to_owned);
    let known = |stem: &str| PROMPTS.into_iter().any(|prompt| name_of(prompt) == stem);
    let mut paths: Vec<_> = entries.take(ENTRIES_MAX).filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| stem(path).is_some_and(|stem| !known(&stem)));
    paths.sort();
    let mistake = |path: PathBuf| {
        let built_in = TEMPLATES.iter().any(|(_, name, _)| stem(&path).as_deref() == Some(name));
        let reason = if built_in { "cannot be replaced" } else { "is the name of no prompt" };
        let hint = format!("there are {}", PROMPTS.map(name_of).join(", "));
        OverrideError { path, reason: reason.to_owned(), hint }
    };
    paths.into_iter().map(mistake).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::log_line;
    use serde_json::json;

    #[test]
    fn an_own_template_replaces_the_built_in_one_as_long_as_it_renders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.md.j2");
        let (context, other) = (json!({ "name": "Ada", "network": false }), json!({ "name": "Bo" }));
        let none = Overrides::default();
        assert_eq!(none.read_again(&folder.path().join("none"), &context).0, none);
        fs::write(&path, "I am {{ name }}.\n").unwrap();
        let (good, mistakes) = none.read_again(folder.path(), &context);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert_eq!(good.render(Template::Worker, &other).unwrap(), "I am Bo.");
        assert_eq!(good.changed_from(&none).collect::<Vec<_>>(), ["worker"]);
        let broken: [&[u8]; 5] = [
            b"{{ nam }}",
            b"{% if %}",
            b"\xff\xfe",
            &[b'x'; 65_537],
            b"{% if not network %}{{ nam }}{% endif %}",
        ];
        for text in broken {
            fs::write(&path, text).unwrap();
            let (kept, mistakes) = good.read_again(folder.path(), &context);
            assert_eq!((&kept, mistakes.len()), (&good, 1));
            assert!(log_line(&mistakes[0]).contains("worker.md.j2"), "{}", mistakes[0]);
            let (built_in, mistakes) = none.read_again(folder.path(), &context);
            assert_eq!((&built_in, mistakes.len()), (&none, 1));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(good.read_again(folder.path(), &context).0, none, "the built-in one is back");
    }

    #[test]
    fn a_name_that_replaces_nothing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["chanel.md.j2", "status.md.j2", "notes.md", ".channel.md.j2.swp"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let (none, mistakes) = Overrides::default().read_again(folder.path(), &json!({}));
        assert_eq!(none, Overrides::default());
        let told: Vec<_> = mistakes.iter().map(|mistake| log_line(mistake)).collect();
        assert!(
            told.len() == 2 && told[0].contains("no prompt (hint: there are channel, branch"),
            "{told:?}"
        );
        assert!(told[1].contains("status.md.j2: cannot be replaced"), "{told:?}");
    }
}
