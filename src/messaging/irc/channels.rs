//! The configured channels: joining, and coming back after a refusal or a kick.

use std::time::Duration;

use super::grammar::line;
use super::isupport::Server;
use super::protocol::{Action, Report};

/// Refusals and kicks after which a channel is left alone until the next connection.
const MAX_FAILURES: u32 = 5;
/// Wait before coming back; doubled with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// In a channel for this long, earlier failures are forgotten.
const FORGIVEN: Duration = Duration::from_secs(600);
/// How long answers wait for the channels after the welcome.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of channel names in one JOIN line; leaves room for the command in 512.
const NAMES_IN_LINE: usize = 400;

#[derive(Debug)]
pub(super) struct Channels(Vec<Channel>);

#[derive(Debug)]
struct Channel {
    name: String,
    key: Option<String>,
    state: State,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    Asked(Duration),
    Inside(Duration),
    Waiting(Duration),
    GivenUp,
}

impl Channels {
    /// Entries are `#name` or `#name key`.
    pub(super) fn new(entries: &[String]) -> Self {
        let channel = |entry: &String| {
            let (name, key) = entry.split_once(' ').map_or((&**entry, None), |(name, key)| (name, Some(key)));
            let key = key.map(str::to_owned);
            Channel { name: name.to_owned(), key, state: State::Outside, failures: 0 }
        };
        Self(entries.iter().map(channel).collect())
    }

    pub(super) fn contains(&self, name: &str, server: &Server) -> bool {
        self.0.iter().any(|channel| server.same(&channel.name, name))
    }

    pub(super) fn join_all(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.join(now, |state| state == State::Outside, actions);
    }

    /// Comes back where the wait is over.
    pub(super) fn tick(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.join(now, |state| matches!(state, State::Waiting(until) if until <= now), actions);
    }

    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let due = |channel: &Channel| match channel.state {
            State::Waiting(until) => Some(until),
            // Once the patience is over nothing more happens by itself.
            State::Asked(since) => Some(since + JOIN_PATIENCE).filter(|end| *end > now),
            _ => None,
        };
        self.0.iter().filter_map(due).min()
    }

    /// True when every JOIN was answered, or nobody answers.
    pub(super) fn settled(&self, now: Duration) -> bool {
        !self
            .0
            .iter()
            .any(|channel| matches!(channel.state, State::Asked(since) if now < since + JOIN_PATIENCE))
    }

    /// True when this channel's JOIN is still open, so that an error names the JOIN.
    pub(super) fn is_asked(&self, name: &str, server: &Server) -> bool {
        self.0.iter().any(|one| matches!(one.state, State::Asked(_)) && server.same(&one.name, name))
    }

    pub(super) fn joined(&mut self, name: &str, server: &Server, now: Duration) -> Option<Report> {
        let channel = self.0.iter_mut().find(|channel| server.same(&channel.name, name))?;
        channel.state = State::Inside(now);
        Some(Report::Joined { channel: channel.name.clone() })
    }

    /// Not let in, thrown out, or moved out.
    pub(super) fn lost(
        &mut self,
        name: &str,
        reason: String,
        server: &Server,
        now: Duration,
    ) -> Option<Report> {
        let channel = self.0.iter_mut().find(|channel| server.same(&channel.name, name))?;
        if matches!(channel.state, State::Inside(since) if now >= since + FORGIVEN) {
            channel.failures = 0;
        }
        channel.failures += 1;
        let wait = FIRST_WAIT * (1 << (channel.failures - 1).min(MAX_FAILURES));
        let again = (channel.failures < MAX_FAILURES).then_some(wait);
        channel.state = again.map_or(State::GivenUp, |wait| State::Waiting(now + wait));
        Some(Report::NotInChannel { channel: channel.name.clone(), reason, again })
    }

    fn join(&mut self, now: Duration, wanted: impl Fn(State) -> bool, actions: &mut Vec<Action>) {
        let mut names = String::new();
        for channel in self.0.iter_mut().filter(|channel| wanted(channel.state)) {
            channel.state = State::Asked(now);
            if let Some(key) = &channel.key {
                actions.push(Action::Write(line(&["JOIN", &channel.name, key], None)));
                continue;
            }
            if !names.is_empty() && names.len() + channel.name.len() >= NAMES_IN_LINE {
                actions.push(Action::Write(line(&["JOIN", &std::mem::take(&mut names)], None)));
            }
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(&channel.name);
        }
        if !names.is_empty() {
            actions.push(Action::Write(line(&["JOIN", &names], None)));
        }
    }
}
