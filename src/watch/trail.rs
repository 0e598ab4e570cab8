//! Where a change would change what a path leads to: a name in a folder for the file itself, and one
//! more for every link on the way. A link that is swapped is noticed like a file that is written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::Watched;

/// Links on the way to one file; the kernel follows as many.
const LINKS_MAX: usize = 40;

/// Which names in a folder matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    These(BTreeSet<OsString>),
    All,
}

impl Names {
    pub(super) fn matter(&self, name: &OsStr) -> bool {
        match self {
            Names::These(names) => names.contains(name),
            Names::All => true,
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Names::These(mut names), Names::These(more)) => {
                names.extend(more);
                Names::These(names)
            }
            _ => Names::All,
        }
    }
}

/// The folders to look at, without links in their paths, and the names in them.
pub(super) fn folders(list: &[Watched]) -> BTreeMap<PathBuf, Names> {
    let mut folders: BTreeMap<PathBuf, Names> = BTreeMap::new();
    let mut add = |folder: PathBuf, names: Names| {
        let known = folders.remove(&folder);
        let all = known.map_or(names.clone(), |known| known.and(names));
        folders.insert(folder, all);
    };
    for watched in list {
        let Trail { steps, end } = walk(watched.path());
        for (folder, name) in steps {
            add(folder, Names::These([name].into()));
        }
        if let (Watched::Folder(_), Some(end)) = (watched, end.filter(|end| end.is_dir())) {
            add(end, Names::All);
        }
    }
    folders
}

struct Trail {
    steps: Vec<(PathBuf, OsString)>,
    /// What the path leads to, if that is there.
    end: Option<PathBuf>,
}

/// Follows `path` as far as it leads.
fn walk(path: &Path) -> Trail {
    let mut trail = Trail { steps: Vec::new(), end: None };
    let Ok(path) = std::path::absolute(path) else { return trail };
    let mut at = PathBuf::from("/");
    // The next component is the last one.
    let mut ahead = reversed(&path);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&name);
        let found = here.symlink_metadata();
        let is_link = found.as_ref().is_ok_and(std::fs::Metadata::is_symlink);
        if found.is_err() || is_link || ahead.is_empty() {
            trail.steps.push((at.clone(), name));
        }
        if found.is_err() {
            return trail;
        }
        if !is_link {
            at = here;
            continue;
        }
        links += 1;
        let Ok(target) = here.read_link() else { return trail };
        if links > LINKS_MAX {
            return trail;
        }
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        ahead.extend(reversed(&target));
    }
    trail.end = Some(at);
    trail
}

fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Folder and name of every step, relative to `base`.
    fn steps(base: &Path, path: &str) -> Vec<String> {
        let trail = walk(&base.join(path));
        let told = |(folder, name): (PathBuf, OsString)| {
            folder.strip_prefix(base).unwrap().join(name).to_string_lossy().into_owned()
        };
        trail.steps.into_iter().map(told).collect()
    }

    #[test]
    fn every_link_on_the_way_is_a_step() {
        let folder = tempfile::tempdir().unwrap();
        let base = &folder.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("releases/1")).unwrap();
        fs::write(base.join("releases/1/c.toml"), "").unwrap();
        symlink("releases/1", base.join("current")).unwrap();
        symlink("current/c.toml", base.join("c.toml")).unwrap();
        symlink(base.join("c.toml"), base.join("releases/absolute")).unwrap();
        symlink("../current", base.join("releases/up")).unwrap();
        symlink("round", base.join("round")).unwrap();
        assert_eq!(steps(base, "releases/1/c.toml"), ["releases/1/c.toml"]);
        assert_eq!(steps(base, "c.toml"), ["c.toml", "current", "releases/1/c.toml"]);
        assert_eq!(
            steps(base, "releases/absolute"),
            ["releases/absolute", "c.toml", "current", "releases/1/c.toml"]
        );
        assert_eq!(steps(base, "releases/up/c.toml"), ["releases/up", "current", "releases/1/c.toml"]);
        assert_eq!(steps(base, "releases/../none/c.toml"), ["none"], "the first that is missing is the end");
        assert_eq!(steps(base, "round").len(), LINKS_MAX + 1);
    }

    #[test]
    fn all_names_of_a_folder_matter_and_one_is_no_more_than_all() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let prompts = base.join("prompts");
        let list = [
            Watched::File(prompts.join("a")),
            Watched::Folder(prompts.clone()),
            Watched::File(base.join("b")),
        ];
        let missing = folders(&list);
        assert_eq!(missing[&base], Names::These(["prompts", "b"].map(OsString::from).into()));
        fs::create_dir(&prompts).unwrap();
        let there = folders(&list);
        assert_eq!((&there[&prompts], there.len()), (&Names::All, 2));
        assert!(there[&base].matter(OsStr::new("prompts")) && !there[&base].matter(OsStr::new("c")));
    }
}
