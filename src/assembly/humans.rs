//! `humans/<id>.md`: what the operator has written about people of the config.

use std::path::PathBuf;

use spacebot::config::{AgentConfig, Config, HumanConfig};
use spacebot::identity::{self, IdentityError};
use spacebot::watch::Watched;

fn folder(config: &Config) -> PathBuf {
    config.data_folder.join("humans")
}

/// Nothing, where nobody is known.
pub(super) fn watched(config: &Config) -> Option<Watched> {
    (!config.humans.is_empty()).then(|| Watched::Folder(folder(config)))
}

/// The config with what the files say; where one cannot be read, `old` stays in force.
pub(super) fn with_profiles(mut config: Config, old: &[HumanConfig]) -> (Config, Vec<IdentityError>) {
    let folder = folder(&config);
    let mut mistakes = Vec::new();
    for human in &mut config.humans {
        human.profile = identity::profile(&folder, &human.id).unwrap_or_else(|error| {
            mistakes.push(error);
            let known = old.iter().find(|known| known.id == human.id);
            known.map(|known| known.profile.clone()).unwrap_or_default()
        });
    }
    let humans = &config.humans;
    let knows = |agent: &mut AgentConfig| agent.humans.clone_from(humans);
    config.agents.iter_mut().for_each(knows);
    (config, mistakes)
}

/// Files whose text is another now.
pub(super) fn changed(old: &Config, new: &Config) -> Vec<String> {
    let differs = |human: &&HumanConfig| {
        let before = old.humans.iter().find(|known| known.id == human.id);
        before.map_or("", |known| known.profile.as_str()) != human.profile
    };
    let path = |human: &HumanConfig| folder(new).join(format!("{}.md", human.id)).display().to_string();
    new.humans.iter().filter(differs).map(path).collect()
}
