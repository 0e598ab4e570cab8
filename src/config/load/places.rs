//! Where the file and the data are looked for.

use std::path::{Path, PathBuf};

use super::Environment;

/// Where the file may be: the first that exists is read.
pub fn places(explicit: Option<&Path>, environment: &dyn Environment) -> Vec<PathBuf> {
    if let Some(file) = explicit {
        return vec![file.to_owned()];
    }
    let home = environment.variable("HOME").map(|home| PathBuf::from(home).join(".spacebot/config.toml"));
    let own = environment.variable("SPACEBOT_DIR").map(|folder| PathBuf::from(folder).join("config.toml"));
    [own, home, Some(PathBuf::from("/etc/spacebot/config.toml"))].into_iter().flatten().collect()
}

pub(super) fn data_folder(environment: &dyn Environment) -> PathBuf {
    let named = environment.variable("SPACEBOT_DIR").or_else(|| environment.variable("STATE_DIRECTORY"));
    let home =
        || PathBuf::from(environment.variable("HOME").unwrap_or_else(|| ".".to_owned())).join(".spacebot");
    named.map_or_else(home, PathBuf::from)
}
