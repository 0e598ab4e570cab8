//! From the first line to numeric 001: capabilities, SASL and a free nick.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::grammar::{Message, line};
use super::protocol::{Action, Closing, Report};
use super::settings::Settings;
use crate::text;

/// What we can use, in the order in which it is asked for; `labeled-response` builds on `batch`.
/// Each is asked for in a line of its own: a server refuses a list whole for one word in it.
const WANTED: [&str; 8] = [
    "message-tags",
    "batch",
    "server-time",
    HISTORY,
    "account-tag",
    "echo-message",
    "labeled-response",
    SASL,
];
const SASL: &str = "sasl";
/// We may ask for what was said; the server then plays back nothing by itself.
pub(super) const HISTORY: &str = "draft/chathistory";
/// Bytes of base64 in one AUTHENTICATE line; a full one says that another follows.
const SASL_CHUNK: usize = 400;
/// Nicks with underscores that are tried when the configured one is taken, and after them nicks
/// with a number, which also fit where the server cuts after nine letters.
const UNDERSCORES: usize = 4;
const NUMBERS: usize = 5;
const NUMBERED_STEM: usize = 7;

#[derive(Debug)]
pub(super) struct Registration {
    settings: Arc<Settings>,
    stage: Stage,
    /// Offered capabilities that we want, with their values.
    offered: Vec<(&'static str, String)>,
    /// Asked for and not answered yet.
    asked: VecDeque<&'static str>,
    active: Vec<&'static str>,
    authenticated: bool,
    nick_tries: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Listing,
    Requesting,
    Authenticating,
    /// Everything asked for is settled.
    Settled,
}

impl Registration {
    pub(super) fn begin(settings: Arc<Settings>, actions: &mut Vec<Action>) -> Self {
        let config = &settings.config;
        if let Some(password) = &config.password {
            actions.push(Action::Write(line(&["PASS"], Some(password.reveal()))));
        }
        let user: String = config.nick.chars().filter(char::is_ascii_alphanumeric).collect();
        let user = if user.is_empty() { "bot" } else { &user };
        actions.push(Action::Write(line(&["CAP", "LS", "302"], None)));
        actions.push(Action::Write(line(&["NICK", &config.nick], None)));
        actions.push(Action::Write(line(&["USER", user, "0", "*"], Some(&config.realname))));
        Self {
            settings,
            stage: Stage::Listing,
            offered: Vec::new(),
            asked: VecDeque::new(),
            active: Vec::new(),
            authenticated: false,
            nick_tries: 0,
        }
    }

    pub(super) fn has(&self, capability: &str) -> bool {
        self.active.contains(&capability)
    }

    /// CAP, AUTHENTICATE and the numerics 900 to 908.
    pub(super) fn handle(&mut self, message: &Message, actions: &mut Vec<Action>) {
        match message.command.as_str() {
            "CAP" => self.capability(message, actions),
            "AUTHENTICATE" if message.param(0) == "+" && self.stage == Stage::Authenticating => {
                self.send_credentials(actions);
            }
            "900" => actions.push(Action::Report(Report::LoggedIn { account: message.param(2).to_owned() })),
            "903" if self.stage == Stage::Authenticating => {
                self.authenticated = true;
                self.settle(actions);
            }
            "902" | "904" | "905" | "906" | "907" | "908" if self.stage == Stage::Authenticating => {
                let reason = format!("SASL: {} ({})", message.text(), message.command);
                actions.push(Action::Close(Closing::Credentials(reason)));
            }
            _ => {}
        }
    }

    /// A server from before capabilities does not know the command; without credentials that is fine.
    pub(super) fn capabilities_unknown(&mut self, actions: &mut Vec<Action>) {
        if self.stage == Stage::Listing {
            self.all_asked(actions);
        }
    }

    /// Numeric 001 came. An error where we would be on the server without the configured account.
    pub(super) fn welcome(&mut self) -> Result<(), Closing> {
        if self.wants_sasl() && !self.authenticated {
            let reason = "the server let us in before the SASL login".to_owned();
            return Err(Closing::Credentials(reason));
        }
        self.stage = Stage::Settled;
        Ok(())
    }

    /// The next nick to try; `None` after the last.
    pub(super) fn next_nick(&mut self) -> Option<String> {
        self.nick_tries += 1;
        let nick = &self.settings.config.nick;
        match self.nick_tries {
            tries @ 1..=UNDERSCORES => Some(format!("{nick}{}", "_".repeat(tries))),
            tries if tries <= UNDERSCORES + NUMBERS => {
                Some(format!("{}_{}", text::prefix(nick, NUMBERED_STEM), tries - UNDERSCORES))
            }
            _ => None,
        }
    }

    fn wants_sasl(&self) -> bool {
        self.settings.config.sasl_username.is_some()
    }

    fn capability(&mut self, message: &Message, actions: &mut Vec<Action>) {
        let listed = message.text();
        match message.param(1).to_ascii_uppercase().as_str() {
            "LS" => {
                self.offer(listed);
                if message.param(2) != "*" && self.stage == Stage::Listing {
                    self.all_asked(actions);
                }
            }
            "NEW" if self.stage == Stage::Settled => {
                self.offer(listed);
                self.request(|name| name != SASL, actions);
            }
            "DEL" => self.active.retain(|known| !listed.split(' ').any(|name| name == *known)),
            "ACK" => self.answered(listed, true, actions),
            "NAK" => self.answered(listed, false, actions),
            _ => {}
        }
    }

    fn offer(&mut self, listed: &str) {
        for word in listed.split(' ') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            if let Some(known) = WANTED.iter().find(|wanted| **wanted == name) {
                self.offered.retain(|(offered, _)| offered != known);
                self.offered.push((*known, value.to_owned()));
            }
        }
    }

    /// The list of offers is complete: ask for what we want of it.
    fn all_asked(&mut self, actions: &mut Vec<Action>) {
        let sasl = self.wants_sasl();
        if sasl && let Err(closing) = self.sasl_offered() {
            actions.push(Action::Close(closing));
            return;
        }
        self.stage = Stage::Requesting;
        self.request(|name| sasl || name != SASL, actions);
        if self.asked.is_empty() {
            self.settle(actions);
        }
    }

    fn sasl_offered(&self) -> Result<(), Closing> {
        let offer = self.offered.iter().find(|(name, _)| *name == SASL);
        match offer {
            None => Err(Closing::Credentials("the server offers no SASL login now".to_owned())),
            Some((_, value))
                if !value.is_empty() && !value.split(',').any(|one| one.eq_ignore_ascii_case("PLAIN")) =>
            {
                Err(Closing::Credentials(format!("the server offers SASL only with {value}, not PLAIN")))
            }
            Some(_) => Ok(()),
        }
    }

    fn request(&mut self, wanted: impl Fn(&str) -> bool, actions: &mut Vec<Action>) {
        for name in WANTED {
            let offered = self.offered.iter().any(|(offered, _)| *offered == name);
            if offered && wanted(name) && !self.has(name) && !self.asked.contains(&name) {
                self.asked.push_back(name);
                actions.push(Action::Write(line(&["CAP", "REQ"], Some(name))));
            }
        }
    }

    fn answered(&mut self, listed: &str, granted: bool, actions: &mut Vec<Action>) {
        for word in listed.split_whitespace() {
            let removed = word.starts_with('-');
            let name = word.trim_start_matches(['-', '~', '=']);
            let Some(place) = self.asked.iter().position(|asked| *asked == name) else { continue };
            let Some(name) = self.asked.remove(place) else { continue };
            if granted && !removed {
                self.active.push(name);
            }
        }
        if self.stage != Stage::Requesting || !self.asked.is_empty() {
            return;
        }
        if !self.wants_sasl() {
            self.settle(actions);
        } else if self.has(SASL) {
            self.stage = Stage::Authenticating;
            actions.push(Action::Write(line(&["AUTHENTICATE", "PLAIN"], None)));
        } else {
            let reason = "the server refused the capability sasl".to_owned();
            actions.push(Action::Close(Closing::Credentials(reason)));
        }
    }

    fn send_credentials(&self, actions: &mut Vec<Action>) {
        let config = &self.settings.config;
        let (Some(user), Some(password)) = (&config.sasl_username, &config.sasl_password) else { return };
        let encoded = STANDARD.encode(format!("\0{user}\0{}", password.reveal()));
        let mut rest = encoded.as_str();
        loop {
            let chunk = text::prefix(rest, SASL_CHUNK);
            rest = &rest[chunk.len()..];
            let word = if chunk.is_empty() { "+" } else { chunk };
            actions.push(Action::Write(line(&["AUTHENTICATE", word], None)));
            if chunk.len() < SASL_CHUNK {
                return;
            }
        }
    }

    fn settle(&mut self, actions: &mut Vec<Action>) {
        self.stage = Stage::Settled;
        actions.push(Action::Write(line(&["CAP", "END"], None)));
    }
}
