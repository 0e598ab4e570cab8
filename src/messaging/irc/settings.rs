//! The instance's configuration, checked and completed once at the start.

use super::IrcError;
use super::access::Allowed;
use super::texts::Texts;
use crate::config::IrcConfig;

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: IrcConfig,
    pub(super) allowed: Allowed,
    pub(super) texts: Texts,
    /// What people call the network: the instance's name, or the server's.
    pub(super) network: String,
}

impl Settings {
    pub(super) fn new(config: IrcConfig) -> Result<Self, IrcError> {
        check(&config)?;
        let allowed = Allowed::new(&config.dm_allowed_users);
        let network = config.instance.as_str().split_once(':').map_or(&*config.server, |(_, name)| name);
        Ok(Self { allowed, network: network.to_owned(), texts: Texts::load()?, config })
    }

    /// `irc:libera:` and then what is behind it.
    pub(super) fn conversation(&self, rest: &str) -> String {
        format!("{}:{rest}", self.config.instance)
    }
}

/// Refuses what would break out of its place in a line: a password may hold blanks, a nick may not.
fn check(config: &IrcConfig) -> Result<(), IrcError> {
    let wrong = |key: &'static str, reason: &str| {
        Err(IrcError::Configuration { instance: config.instance.clone(), key, reason: reason.to_owned() })
    };
    let breaks = |text: &str| text.contains(['\r', '\n', '\0']);
    let is_word = |text: &str| !text.is_empty() && !breaks(text) && !text.contains([' ', ',', ':']);
    if config.server.trim().is_empty() {
        return wrong("server", "is empty");
    }
    if !is_word(&config.nick) || config.nick.contains(['!', '@', '#', '*', '?']) {
        return wrong("nick", "is not a nick");
    }
    if breaks(&config.realname) {
        return wrong("realname", "has more than one line");
    }
    let secrets = [&config.password, &config.sasl_password];
    if secrets.into_iter().flatten().any(|secret| breaks(secret.reveal()) || secret.reveal().is_empty()) {
        return wrong("password", "is empty or has more than one line");
    }
    if config.sasl_username.is_some() != config.sasl_password.is_some() {
        return wrong("sasl_username", "sasl_username and sasl_password go together");
    }
    for channel in &config.channels {
        let mut words = channel.split(' ');
        let name = words.next().unwrap_or_default();
        let key_fits = words.next().is_none_or(is_word);
        if !is_word(name) || !key_fits || words.next().is_some() {
            return wrong("channels", "an entry is neither `#channel` nor `#channel key`");
        }
    }
    Ok(())
}
