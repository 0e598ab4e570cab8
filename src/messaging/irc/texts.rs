//! The sentences of `prompts/en/irc.toml`.

use super::IrcError;

const FILE: &str = include_str!("../../../prompts/en/irc.toml");

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Texts {
    pub(super) not_allowed: String,
    pub(super) not_stored: String,
    left_out: String,
    pub(super) quit: String,
}

impl Texts {
    pub(super) fn load() -> Result<Self, IrcError> {
        toml::from_str(FILE).map_err(|error| IrcError::Texts(error.to_string()))
    }

    pub(super) fn left_out(&self, lines: usize) -> String {
        self.left_out.replace("{lines}", &lines.to_string())
    }
}
