//! One connection's conversation with the server, without I/O: lines in, actions out.

use std::sync::Arc;
use std::time::Duration;

use super::channels::Channels;
use super::delivery::{Begun, Deliveries, Proof};
use super::format::{Mention, Spoken, mention, spoken};
use super::grammar::{Message, Source, line};
use super::isupport::Server;
use super::people::{People, Whereabouts};
use super::registration::Registration;
use super::settings::Settings;
use super::split::split;
use crate::clock::Timestamp;
use crate::id::{ConversationId, OutboxId};
use crate::message::{Content, Delivery, Inbound, Outbound};

/// From the connection to the welcome.
const REGISTER_WITHIN: Duration = Duration::from_secs(60);
/// Silence after which we ask whether the server is still there, and how long it may take to say so.
const PING_AFTER: Duration = Duration::from_secs(90);
const PONG_WITHIN: Duration = Duration::from_secs(30);
/// Lines of one answer; more are counted and left out.
const MAX_LINES: usize = 40;
/// `!user@host` of us while the server has not shown it: the longest that is usual.
const UNKNOWN_MASK: usize = 1 + 10 + 1 + 63;
/// A server's time is believed when it is this close to ours.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 3600);
/// Marks of direct conversations: a services account, or a bare nick.
const ACCOUNT: char = '@';
const NICK: char = '~';

/// What the connection has to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Write(String),
    Receive(Box<Inbound>),
    Progress(Progress),
    Report(Report),
    Close(Closing),
}

/// How far an answer has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub(super) id: OutboxId,
    pub(super) conversation: ConversationId,
    pub(super) delivery: Delivery,
}

/// For the log and the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Welcome { nick: String },
    LoggedIn { account: String },
    Joined { channel: String },
    NotInChannel { channel: String, reason: String, again: Option<Duration> },
}

/// Why the connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closing {
    /// Trying again soon would not help and may hurt.
    Credentials(String),
    Lost(String),
}

#[derive(Debug)]
pub(super) struct Session {
    settings: Arc<Settings>,
    registration: Registration,
    server: Server,
    channels: Channels,
    deliveries: Deliveries,
    people: People,
    nick: String,
    /// Length of our `!user@host`, once somebody showed it to us.
    mask: Option<usize>,
    welcomed: bool,
    began: Duration,
    heard: Duration,
    pinged: Option<Duration>,
    /// Makes ids where the server gives none: this connection, then a count.
    stamp: String,
    received: u64,
    actions: Vec<Action>,
}

impl Session {
    /// `stamp` must differ from that of every other connection of this instance.
    pub(super) fn begin(settings: Arc<Settings>, now: Duration, stamp: String) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let registration = Registration::begin(settings.clone(), &mut actions);
        let session = Self {
            registration,
            server: Server::default(),
            channels: Channels::new(&settings.config.channels),
            deliveries: Deliveries::new(now),
            people: People::default(),
            nick: settings.config.nick.clone(),
            mask: None,
            welcomed: false,
            began: now,
            heard: now,
            pinged: None,
            stamp,
            received: 0,
            actions: Vec::new(),
            settings,
        };
        (session, actions)
    }

    /// Takes one line of the server.
    pub(super) fn handle(&mut self, message: &Message, now: Duration, wall: Timestamp) -> Vec<Action> {
        self.heard = now;
        self.pinged = None;
        match message.command.as_str() {
            "PING" => self.write(&["PONG"], Some(message.text())),
            "PONG" => self.deliveries.pong(message.text(), &mut self.actions),
            "ACK" => {
                if let Some(label) = message.tag("label") {
                    self.deliveries.labelled(label, None, &mut self.actions);
                }
            }
            "CAP" | "AUTHENTICATE" | "900" | "902" | "903" | "904" | "905" | "906" | "907" | "908" => {
                self.registration.handle(message, &mut self.actions);
            }
            "ERROR" => self.close(Closing::Lost(message.text().to_owned())),
            "464" | "465" => self.close(Closing::Credentials(message.text().to_owned())),
            "PRIVMSG" => self.privmsg(message, now, wall),
            "JOIN" | "PART" | "KICK" | "NICK" | "QUIT" => self.movement(message, now),
            _ => self.numeric(message, now),
        }
        self.tick(now)
    }

    fn numeric(&mut self, message: &Message, now: Duration) {
        let about = message.param(1);
        match message.command.as_str() {
            "001" => self.welcome(message.param(0), now),
            "005" => self.server.learn(&message.params),
            "421" if about.eq_ignore_ascii_case("CAP") => {
                self.registration.capabilities_unknown(&mut self.actions)
            }
            "432" | "433" | "436" | "437" if !self.welcomed => match self.registration.next_nick() {
                Some(nick) => {
                    self.write(&["NICK", &nick], None);
                    self.nick = nick;
                }
                None => self.close(Closing::Credentials("no nick is free".to_owned())),
            },
            "330" => self.deliveries.is_logged_in(about, message.param(2), &self.server),
            "318" => self.deliveries.whois_ended(about, &self.server, &mut self.actions),
            code if code.starts_with(['4', '5']) && code.len() == 3 => self.refused(message, now),
            _ => {}
        }
    }

    fn welcome(&mut self, nick: &str, now: Duration) {
        if let Err(closing) = self.registration.welcome() {
            self.close(closing);
            return;
        }
        self.welcomed = true;
        nick.clone_into(&mut self.nick);
        self.actions.push(Action::Report(Report::Welcome { nick: nick.to_owned() }));
        self.channels.join_all(now, &mut self.actions);
    }

    /// An error that names a channel or a nick: a JOIN that failed or a line that was not taken.
    fn refused(&mut self, message: &Message, now: Duration) {
        let (about, reason) = (message.param(1), format!("{} ({})", message.text(), message.command));
        if self.channels.is_asked(about, &self.server) {
            let report = self.channels.lost(about, reason, &self.server, now);
            self.actions.extend(report.map(Action::Report));
            return;
        }
        self.deliveries.refused(about, message.tag("label"), &reason, &self.server, &mut self.actions);
    }

    fn movement(&mut self, message: &Message, now: Duration) {
        let Some(source) = &message.source else { return };
        let (ours, what) = (self.server.same(&source.nick, &self.nick), message.param(0));
        match message.command.as_str() {
            "JOIN" if ours => {
                self.learn_mask(source);
                let report = self.channels.joined(what, &self.server, now);
                self.actions.extend(report.map(Action::Report));
            }
            "PART" if ours => self.lost_channel(what, "we were moved out", now),
            "KICK" if self.server.same(message.param(1), &self.nick) => {
                self.lost_channel(what, &format!("kicked by {}: {}", source.nick, message.text()), now);
            }
            "NICK" if ours => what.clone_into(&mut self.nick),
            "NICK" => {
                self.people.renamed(&source.nick, what, &self.server);
                self.regain(&source.nick);
            }
            "QUIT" => {
                self.people.left(&source.nick, &self.server);
                self.regain(&source.nick);
            }
            _ => {}
        }
    }

    fn lost_channel(&mut self, channel: &str, reason: &str, now: Duration) {
        let report = self.channels.lost(channel, reason.to_owned(), &self.server, now);
        self.actions.extend(report.map(Action::Report));
    }

    /// Takes the configured nick when the one who had it lets go.
    fn regain(&mut self, freed: &str) {
        let wanted = &self.settings.config.nick;
        if self.server.same(freed, wanted) && !self.server.same(&self.nick, wanted) {
            self.actions.push(Action::Write(line(&["NICK", wanted], None)));
        }
    }

    fn learn_mask(&mut self, source: &Source) {
        if !source.host.is_empty() {
            self.mask = Some(source.mask().len() - source.nick.len());
        }
    }

    fn privmsg(&mut self, message: &Message, now: Duration, wall: Timestamp) {
        let Some(source) = message.source.clone() else { return };
        let target = message.param(0).to_owned();
        if self.server.same(&source.nick, &self.nick) {
            self.learn_mask(&source);
            let (label, id) = (message.tag("label"), message.tag("msgid"));
            self.deliveries.echoed(&target, label, id, &self.server, &mut self.actions);
            return;
        }
        let account = message.tag("account").filter(|account| *account != "*").map(str::to_owned);
        if let Some(account) = &account {
            self.people.met(account, &source.nick, &self.server, now);
        }
        let Some(said) = spoken(message.text()) else { return };
        let direct = self.server.same(&target, &self.nick);
        // `@#channel` is for a part of its people; an answer there would reach all of them.
        if !direct && (self.server.is_part_of_channel(&target) || !self.server.is_channel(&target)) {
            return;
        }
        let (text, addressed) = self.understood(said, &source);
        if direct {
            let casemapping = self.server.casemapping;
            if !self.settings.allowed.allows(&source, account.as_deref(), casemapping) {
                if self.people.refuse(self.server.fold(&source.mask())) {
                    self.deliveries.notice(&source.nick, &self.settings.texts.not_allowed);
                }
                return;
            }
        } else if !self.channels.contains(&target, &self.server)
            || self.settings.config.require_mention && !addressed
        {
            return;
        }
        let rest = match (&account, direct) {
            (Some(account), true) => format!("{ACCOUNT}{}", self.server.fold(account)),
            (None, true) => format!("{NICK}{}", self.server.fold(&source.nick)),
            (_, false) => self.server.fold(&target),
        };
        self.received += 1;
        let made = || format!("{}-{}", self.stamp, self.received);
        let place = if direct { source.nick.clone() } else { target };
        self.actions.push(Action::Receive(Box::new(Inbound {
            instance: self.settings.config.instance.clone(),
            platform_id: message.tag("msgid").map_or_else(made, str::to_owned),
            conversation: ConversationId::new(self.settings.conversation(&rest)),
            agent: None,
            sender_id: account.unwrap_or_else(|| source.mask()),
            sender_name: source.nick,
            content: text,
            sent_at: sent_at(message, wall),
            direct,
            addressed: addressed || direct,
            place: format!("{} / {place}", self.settings.network),
        })));
    }

    /// The words without our name in front, and whether they name us.
    fn understood(&self, said: Spoken, source: &Source) -> (String, bool) {
        match said {
            Spoken::Acted(text) => {
                let named = mention(&text, &self.nick, self.server.casemapping) != Mention::None;
                (format!("* {} {text}", source.nick), named)
            }
            Spoken::Said(text) => match mention(&text, &self.nick, self.server.casemapping) {
                Mention::Address(rest) if !rest.is_empty() => (rest.to_owned(), true),
                Mention::Address(_) | Mention::Within => (text, true),
                Mention::None => (text, false),
            },
        }
    }

    /// What time brings: lines whose turn has come, channels to come back to, a dead server.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.channels.tick(now, &mut self.actions);
        self.deliveries.pump(now, &mut self.actions);
        if !self.welcomed && now >= self.began + REGISTER_WITHIN {
            self.close(Closing::Lost("the server did not welcome us in time".to_owned()));
        }
        match self.pinged {
            Some(since) if now >= since + PONG_WITHIN => {
                self.close(Closing::Lost("the server went silent".to_owned()));
            }
            None if now >= self.heard + PING_AFTER => {
                self.pinged = Some(now);
                self.write(&["PING"], Some("alive"));
            }
            _ => {}
        }
        std::mem::take(&mut self.actions)
    }

    pub(super) fn deadline(&mut self, now: Duration) -> Duration {
        let silence = self.pinged.map_or(self.heard + PING_AFTER, |since| since + PONG_WITHIN);
        let welcome = (!self.welcomed).then(|| self.began + REGISTER_WITHIN);
        let others =
            [self.channels.deadline(now), self.deliveries.deadline(), self.deliveries.free_at(now), welcome];
        others.into_iter().flatten().fold(silence, Duration::min)
    }

    /// True when an answer from the outbox would go out now.
    pub(super) fn takes_answers(&mut self, now: Duration) -> bool {
        self.welcomed && self.channels.settled(now) && self.deliveries.is_free(now)
    }

    /// Begins an answer. The error says why it can never be sent.
    pub(super) fn say(&mut self, outbound: &Outbound, now: Duration) -> Result<(), String> {
        let Content::Text { text } = &outbound.content else {
            return Err("IRC has no reactions".to_owned());
        };
        let prefix = format!("{}:", self.settings.config.instance);
        let rest = outbound.conversation.as_str().strip_prefix(&prefix).unwrap_or_default();
        let (target, account) = match (rest.strip_prefix(ACCOUNT), rest.strip_prefix(NICK)) {
            (Some(account), _) => match self.people.find(account, now) {
                Whereabouts::Here(nick) => (nick, None),
                Whereabouts::Ask(nick) => (nick, Some(account.to_owned())),
            },
            (None, Some(nick)) => (nick.to_owned(), None),
            (None, None) => (rest.to_owned(), None),
        };
        if target.is_empty() {
            return Err(format!("{} is no conversation of this connection", outbound.conversation));
        }
        let mask = self.nick.len() + self.mask.unwrap_or(UNKNOWN_MASK);
        let around = ":".len() + mask + " PRIVMSG ".len() + target.len() + " :".len() + "\r\n".len();
        let mut split = split(text, self.server.line_length.saturating_sub(around), MAX_LINES);
        if split.left_out > 0 {
            split.lines.push(self.settings.texts.left_out(split.left_out));
        }
        if split.lines.is_empty() {
            return Err("nothing is left of the text on IRC".to_owned());
        }
        let echo = self.registration.has("echo-message");
        let proof = match (echo && self.registration.has("labeled-response"), echo) {
            (true, _) => Proof::Label,
            (false, true) => Proof::Echo,
            (false, false) => Proof::Ping,
        };
        let (id, conversation) = (outbound.id, outbound.conversation.clone());
        let begun = Begun { id, conversation, target, account, proof, lines: split.lines };
        self.deliveries.begin(begun, now, &mut self.actions);
        Ok(())
    }

    /// Tells the writer that a message could not be kept.
    pub(super) fn not_stored(&mut self, nick: &str) {
        self.deliveries.notice(nick, &self.settings.texts.not_stored);
    }

    /// The connection is gone.
    pub(super) fn abandon(&mut self) -> Vec<Action> {
        self.deliveries.abandon(&mut self.actions);
        std::mem::take(&mut self.actions)
    }

    fn write(&mut self, words: &[&str], trailing: Option<&str>) {
        self.actions.push(Action::Write(line(words, trailing)));
    }

    fn close(&mut self, closing: Closing) {
        self.actions.push(Action::Close(closing));
    }
}

/// The server's time where it is plausible, else ours.
fn sent_at(message: &Message, wall: Timestamp) -> Timestamp {
    let told = message.tag("time").and_then(Timestamp::parse_rfc3339);
    told.filter(|told| wall.since(*told).max(told.since(wall)) < CLOCK_TOLERANCE).unwrap_or(wall)
}
