//! What we say: where an answer goes, as which lines, and the last words.

use super::super::delivery::{Begun, Proof};
use super::super::people::Whereabouts;
use super::super::split::split;
use super::{ACCOUNT, Action, Moment, NICK, Progress, Session};
use crate::message::{Content, Delivery, Outbound};

/// Lines of one answer; the rest is named in one more line. At one line in two seconds this is more
/// than a minute.
const MAX_LINES: usize = 40;
/// What we assume of our own address until the server showed it: the longest that servers make.
const LONGEST_USER: usize = 12;
const LONGEST_HOST: usize = 63;
/// Bytes of a line end.
const LINE_END: usize = 2;

impl Session {
    /// True when an answer given to [`Session::say`] now would go out now.
    pub(in super::super) fn is_free(&mut self, now: Moment) -> bool {
        self.registered
            && !self.closed
            && self.channels.settled(now.steady)
            && self.deliveries.is_free(now.steady)
    }

    /// When to look at [`Session::is_free`] again, where that is only a matter of time.
    pub(in super::super) fn free_at(&mut self, now: Moment) -> Option<std::time::Duration> {
        self.deliveries.free_at(now.steady)
    }

    /// Takes an answer that the outbox holds as `Sending`. Exactly one terminal progress follows,
    /// unless the connection ends before.
    pub(in super::super) fn say(&mut self, outbound: Outbound, now: Moment) -> Vec<Action> {
        let (id, conversation) = (outbound.id, outbound.conversation.clone());
        match self.lines_of(outbound, now) {
            Ok(begun) => self.deliveries.begin(begun, now.steady, &mut self.actions),
            Err(reason) => {
                let delivery = Delivery::Refused { reason };
                self.actions.push(Action::Progress(Progress { id, conversation, delivery }));
            }
        }
        self.finish(now)
    }

    /// Tells the writer of a message that it was not stored.
    pub(in super::super) fn apologise(&mut self, reply_to: &str, now: Moment) -> Vec<Action> {
        self.deliveries.notice(reply_to, &self.settings.texts.not_stored);
        self.finish(now)
    }

    /// The last lines; `unstored` names the writer of a message that is given up.
    pub(in super::super) fn goodbye(&mut self, unstored: Option<&str>) -> Vec<Action> {
        let texts = self.settings.texts.clone();
        if let Some(target) = unstored {
            self.write(&["NOTICE", target], Some(&texts.not_stored));
        }
        self.write(&["QUIT"], Some(&texts.quit));
        std::mem::take(&mut self.actions)
    }

    fn lines_of(&self, outbound: Outbound, now: Moment) -> Result<Begun, String> {
        let Content::Text { text } = &outbound.content else {
            return Err("IRC has no reactions".to_owned());
        };
        let (target, account) = self.target(outbound.conversation.as_str(), now)?;
        let split = split(text, self.room(&target), MAX_LINES);
        let mut lines = split.lines;
        if lines.is_empty() {
            return Err("the answer has no text that IRC can carry".to_owned());
        }
        if split.left_out > 0 {
            lines.push(self.settings.texts.left_out(split.left_out));
        }
        let (id, conversation, proof) = (outbound.id, outbound.conversation, self.proof());
        Ok(Begun { id, conversation, target, account, proof, lines })
    }

    /// The nick or channel to write to, and the account to be proven before.
    fn target(&self, conversation: &str, now: Moment) -> Result<(String, Option<String>), String> {
        let key = conversation
            .strip_prefix(self.settings.config.instance.as_str())
            .and_then(|rest| rest.strip_prefix(':'))
            .unwrap_or_default();
        if let Some(account) = key.strip_prefix(ACCOUNT).filter(|account| !account.is_empty()) {
            return Ok(match self.people.find(account, now.steady) {
                Whereabouts::Here(nick) => (nick, None),
                Whereabouts::Ask(nick) => (nick, Some(account.to_owned())),
            });
        }
        if let Some(nick) = key.strip_prefix(NICK).filter(|nick| self.is_nick(nick)) {
            return Ok((nick.to_owned(), None));
        }
        if self.channels.contains(key, &self.server) {
            return Ok((key.to_owned(), None));
        }
        Err(format!("{conversation} is no channel of the configuration and no person"))
    }

    /// False for what the server would read as several targets, a channel or a part of the network.
    fn is_nick(&self, text: &str) -> bool {
        let breaks = text.contains([' ', ',', '!', '@', '*']) || text.starts_with(['$', ':']);
        !text.is_empty() && !breaks && !self.server.is_channel(text)
    }

    fn proof(&self) -> Proof {
        if self.registration.has("labeled-response") && self.registration.has("batch") {
            Proof::Label
        } else if self.registration.has("echo-message") {
            Proof::Echo
        } else {
            Proof::Ping
        }
    }

    /// Bytes of text that fit into one line to `target` as the others receive it.
    fn room(&self, target: &str) -> usize {
        let nick = self.own.nick.len().max(self.settings.config.nick.len());
        let address = if self.own.user.is_empty() || self.own.host.is_empty() {
            LONGEST_USER + LONGEST_HOST
        } else {
            self.own.user.len() + self.own.host.len()
        };
        let around = ":!@".len() + nick + address + " PRIVMSG  :".len() + target.len() + LINE_END;
        self.server.line_length.saturating_sub(around)
    }
}
