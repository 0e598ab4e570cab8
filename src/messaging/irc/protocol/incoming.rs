//! What people say: which of it is for us, and as what it goes to the intake.

use std::time::Duration;

use super::super::format::{Mention, Spoken, mention, spoken};
use super::super::grammar::{Message, Source};
use super::{ACCOUNT, Action, Arrival, Moment, NICK, Report, Session};
use crate::clock::Timestamp;
use crate::id::ConversationId;
use crate::message::{Inbound, Lane};

/// How old a replayed message may be when we connect, to be taken as missed and not as history.
const REPLAY_WINDOW: Duration = Duration::from_secs(15 * 60);
/// How far before our first line a message may be stamped without being a replay.
const STAMP_SLACK: Duration = Duration::from_secs(5);
/// How far ahead of our clock a stamp is believed.
pub(super) const AHEAD: Duration = Duration::from_secs(120);
/// How far behind our clock a stamp is believed: the replay window and a slow line.
const BEHIND: Duration = Duration::from_secs(20 * 60);
/// Longest message id that is taken from a server.
const MAX_MESSAGE_ID: usize = 256;

impl Session {
    pub(super) fn private_message(&mut self, message: &Message, now: Moment) {
        let Some(source) = message.source.clone() else { return };
        let (target, said) = (message.param(0), message.param(1));
        let history = self.batches.is_history(message.tag("batch"));
        if self.is_me(&source.nick) {
            if history {
                self.keep(message, &source, now);
            } else {
                self.own_echo(message, &source);
            }
            return;
        }
        if self.is_replay(message, history) && self.beginnings.is_new(&self.server.fold(target)) {
            // Said before the conversation began: nobody waits for an answer.
            self.keep(message, &source, now);
            return;
        }
        if source.user.is_empty() || source.host.is_empty() || !self.is_wanted_now(message, history) {
            return;
        }
        let Some(said) = spoken(said) else { return };
        if self.server.is_part_of_channel(target) {
            // Only some of the channel read this; an answer would show it to all.
        } else if self.server.is_channel(target) {
            self.channel_message(message, &source, said, now);
        } else if self.is_me(target) {
            self.direct_message(message, &source, said, now);
        }
    }

    fn own_echo(&mut self, message: &Message, source: &Source) {
        self.learn_address(source);
        let label = self.label(message);
        let id = message.tag("msgid");
        self.deliveries.echoed(message.param(0), label.as_deref(), id, &self.server, &mut self.actions);
    }

    fn channel_message(&mut self, message: &Message, source: &Source, said: Spoken, now: Moment) {
        let target = message.param(0);
        if !self.channels.contains(target, &self.server) {
            return;
        }
        let (content, addressed) = self.content(said, &source.nick);
        if self.settings.config.require_mention && !addressed {
            self.keep(message, source, now);
            return;
        }
        let channel = self.server.fold(target);
        let inbound =
            self.inbound(message, source, Said { content, addressed, direct: false }, &channel, now);
        let (mut earlier, talks) = (Vec::new(), inbound.lane() == Lane::Talk);
        if talks {
            earlier = self.beginnings.lines(&channel);
            // It may be refused, and then it was said before the conversation as well.
            self.keep(message, source, now);
        }
        self.actions.push(Action::Deliver(Arrival { inbound, reply_to: target.to_owned(), earlier }));
    }

    fn direct_message(&mut self, message: &Message, source: &Source, said: Spoken, now: Moment) {
        let account = account(message);
        if !self.settings.allowed.allows(source, account, self.server.casemapping) {
            if self.people.refuse(format!("{}@{}", source.user, source.host)) {
                self.report(Report::Refused { who: source.mask() });
                self.deliveries.notice(&source.nick, &self.settings.texts.not_allowed);
            }
            return;
        }
        if let Some(account) = account {
            self.people.met(account, &source.nick, &self.server, now.steady);
        }
        let key = match account {
            Some(account) => format!("{ACCOUNT}{}", self.server.fold(account)),
            None => format!("{NICK}{}", self.server.fold(&source.nick)),
        };
        let (content, _) = self.content(said, &source.nick);
        let said = Said { content, addressed: true, direct: true };
        let inbound = self.inbound(message, source, said, &key, now);
        let reply_to = source.nick.clone();
        self.actions.push(Action::Deliver(Arrival { inbound, reply_to, earlier: Vec::new() }));
    }

    /// The text without our name in front, and whether it names us.
    fn content(&self, said: Spoken, nick: &str) -> (String, bool) {
        let find = |text| mention(text, &self.own.nick, self.server.casemapping);
        match said {
            Spoken::Acted(text) => (format!("* {nick} {text}"), find(&text) != Mention::None),
            Spoken::Said(text) => match find(&text) {
                // Just our name is a message too: somebody calls.
                Mention::Address("") | Mention::Within => (text, true),
                Mention::Address(rest) => (rest.to_owned(), true),
                Mention::None => (text, false),
            },
        }
    }

    fn inbound(&mut self, message: &Message, source: &Source, said: Said, key: &str, now: Moment) -> Inbound {
        let sender_id = account(message).map_or_else(|| source.mask(), str::to_owned);
        Inbound {
            instance: self.settings.config.instance.clone(),
            platform_id: self.message_id(message),
            conversation: ConversationId::new(self.settings.conversation(key)),
            agent: None,
            sender_id,
            sender_name: source.nick.clone(),
            content: said.content,
            sent_at: self.sent_at(message, now),
            direct: said.direct,
            addressed: said.addressed,
            place: format!("{} / {}", self.settings.network, if said.direct { &source.nick } else { key }),
        }
    }

    /// The server's id, or one that no other message has: the same message read twice is then two.
    fn message_id(&mut self, message: &Message) -> String {
        if let Some(id) = message.tag("msgid").filter(|id| id.len() <= MAX_MESSAGE_ID) {
            return id.to_owned();
        }
        self.counter += 1;
        format!("local:{}:{}", self.connection, self.counter)
    }

    /// The server's stamp where it can be true, else now.
    fn sent_at(&self, message: &Message, now: Moment) -> Timestamp {
        let believed = |time: &Timestamp| time.since(now.wall) <= AHEAD && now.wall.since(*time) <= BEHIND;
        stamp(message).filter(believed).unwrap_or(now.wall)
    }

    /// When it was said, by our clock.
    fn said_at(&self, message: &Message) -> Option<Timestamp> {
        stamp(message).map(|time| Timestamp(time.0.saturating_sub(self.skew)))
    }

    /// From before this connection.
    fn is_replay(&self, message: &Message, history: bool) -> bool {
        history || self.said_at(message).is_some_and(|time| self.started.wall.since(time) > STAMP_SLACK)
    }

    /// False for history. A message from before this connection is taken only when the intake can
    /// tell whether it has it already, when it is fresh enough to be worth an answer, and when it belongs to
    /// a conversation that was going on by then.
    fn is_wanted_now(&self, message: &Message, history: bool) -> bool {
        if !self.is_replay(message, history) {
            return true;
        }
        let since = self.beginnings.since(&self.server.fold(message.param(0)));
        message.tag("msgid").is_some()
            && self.said_at(message).is_some_and(|time| {
                self.started.wall.since(time) <= REPLAY_WINDOW && since.is_none_or(|since| time >= since)
            })
    }
}

/// When it was said, by the server's clock.
pub(super) fn stamp(message: &Message) -> Option<Timestamp> {
    message.tag("time").and_then(Timestamp::parse_rfc3339)
}

struct Said {
    content: String,
    addressed: bool,
    direct: bool,
}

/// The sender's services account; the tag comes from the server, which alone may set it.
fn account(message: &Message) -> Option<&str> {
    message.tag("account").filter(|account| *account != "*")
}
