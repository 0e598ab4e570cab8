//! One IRC connection as a state machine without socket, clock or thread: lines and time go in,
//! [`Action`]s come out.

mod batches;
mod history;
mod incoming;
mod outgoing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::channels::Channels;
use super::delivery::Deliveries;
use super::earlier::Beginnings;
use super::grammar::{Message, Source, line};
use super::isupport::Server;
use super::people::People;
use super::registration::Registration;
use super::settings::Settings;
use crate::clock::Timestamp;
use crate::id::{ConversationId, OutboxId};
use crate::message::{Delivery, Earlier, Inbound};
use crate::text;
use batches::Batches;

/// From the first line to the welcome. Generous, because some networks look our name up first.
const REGISTER_WITHIN: Duration = Duration::from_secs(60);
/// Silence of the server after which we ask whether it is there.
const IDLE_PING: Duration = Duration::from_secs(90);
/// Silence after that question which means that the connection is dead.
const PING_PATIENCE: Duration = Duration::from_secs(30);
/// How often we ask for the configured nick while somebody else has it.
const REGAIN_EVERY: Duration = Duration::from_secs(600);
/// Bytes kept of a server's sentence for log and status.
const MAX_REASON: usize = 300;

/// Marks of direct conversations: with a services account, or with whoever has a nick. They keep
/// somebody who takes the nick of an account's name out of that account's conversation.
const ACCOUNT: char = '@';
const NICK: char = '~';

/// The two clocks at one moment: one for what people are told, one for waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) steady: Duration,
}

/// What the connection has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Send this line.
    Write(String),
    /// Give this to the intake.
    Deliver(Arrival),
    /// Tell the outbox what became of an answer.
    Progress(Progress),
    /// For log and status.
    Report(Report),
    /// Hang up. Nothing follows.
    Close(Closing),
}

/// A message for the intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) inbound: Inbound,
    /// Where its writer reads what we have to say about it: the channel or the nick.
    pub(super) reply_to: String,
    /// What was said there before, if the conversation may begin with this message.
    pub(super) earlier: Vec<Earlier>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) id: OutboxId,
    pub(super) conversation: ConversationId,
    pub(super) delivery: Delivery,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    Registered { nick: String },
    Renamed { nick: String },
    LoggedIn { account: String },
    Joined { channel: String },
    NotInChannel { channel: String, reason: String, again: Option<Duration> },
    Refused { who: String },
    Warning { text: String },
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Registered { nick } => write!(formatter, "registered as {nick}"),
            Report::Renamed { nick } => write!(formatter, "the nick is {nick} now"),
            Report::LoggedIn { account } => write!(formatter, "logged in as {account}"),
            Report::Joined { channel } => write!(formatter, "joined {channel}"),
            Report::NotInChannel { channel, reason, again: Some(wait) } => {
                write!(formatter, "not in {channel}: {reason}; next try in {} s", wait.as_secs())
            }
            Report::NotInChannel { channel, reason, again: None } => {
                write!(formatter, "not in {channel}: {reason}; given up for this connection")
            }
            Report::Refused { who } => {
                write!(formatter, "refused a direct message of {who}: not in dm_allowed_users")
            }
            Report::Warning { text } => formatter.write_str(text),
        }
    }
}

/// Why to hang up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closing {
    /// The connection is dead, or the server ended it.
    Lost(String),
    /// The configured login did not happen; going on without it is out of the question.
    Credentials(String),
    /// The server does not want this nick or this address.
    Rejected(String),
}

/// One connection from its first line to its last.
#[derive(Debug)]
pub(super) struct Session {
    settings: Arc<Settings>,
    /// Unlike that of any other connection; makes ids where the server has none.
    connection: String,
    started: Moment,
    /// Server time minus ours, in milliseconds, as far as the server told.
    skew: i64,
    counter: u64,
    /// What the server knows us as; user and host are empty until it showed them.
    own: Source,
    registration: Registration,
    registered: bool,
    server: Server,
    channels: Channels,
    deliveries: Deliveries,
    people: People,
    batches: Batches,
    beginnings: Beginnings,
    histories: usize,
    last_heard: Duration,
    asked_alive: Option<Duration>,
    /// When to ask for the configured nick again; none while we have it.
    regain_at: Option<Duration>,
    closed: bool,
    actions: Vec<Action>,
}

impl Session {
    /// Begins the registration; `connection` must be unlike that of any connection before.
    pub(super) fn open(settings: Arc<Settings>, connection: String, now: Moment) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let registration = Registration::begin(settings.clone(), &mut actions);
        let session = Self {
            own: Source { nick: settings.config.nick.clone(), ..Source::default() },
            channels: Channels::new(&settings.config.channels),
            settings,
            connection,
            started: now,
            skew: 0,
            counter: 0,
            registration,
            registered: false,
            server: Server::default(),
            deliveries: Deliveries::new(now.steady),
            people: People::default(),
            batches: Batches::default(),
            beginnings: Beginnings::default(),
            histories: 0,
            last_heard: now.steady,
            asked_alive: None,
            regain_at: None,
            closed: false,
            actions: Vec::new(),
        };
        (session, actions)
    }

    /// Takes one line from the server, without its end.
    pub(super) fn handle(&mut self, line: &[u8], now: Moment) -> Vec<Action> {
        self.heard(now);
        if let Some(message) = Message::parse(line)
            && !self.closed
        {
            self.dispatch(&message, now);
        }
        self.finish(now)
    }

    /// Does what is due. To be called at [`Session::deadline`], harmless at any other time.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Action> {
        if !self.registered && now.steady >= self.started.steady + REGISTER_WITHIN {
            self.close(Closing::Lost("the server did not finish the registration".to_owned()));
        }
        match self.asked_alive {
            Some(asked) if now.steady >= asked + PING_PATIENCE => {
                self.close(Closing::Lost("the server is silent".to_owned()));
            }
            None if now.steady >= self.last_heard + IDLE_PING => {
                self.asked_alive = Some(now.steady);
                self.write(&["PING"], Some("alive"));
            }
            _ => {}
        }
        if self.registered {
            self.channels.tick(now.steady, &mut self.actions);
        }
        if self.regain_at.is_some_and(|at| at <= now.steady) {
            self.regain(now);
        }
        self.finish(now)
    }

    /// When [`Session::tick`] has something to do next.
    pub(super) fn deadline(&self, now: Moment) -> Duration {
        let alive = self.asked_alive.map_or(self.last_heard + IDLE_PING, |asked| asked + PING_PATIENCE);
        let registration = (!self.registered).then(|| self.started.steady + REGISTER_WITHIN);
        let others =
            [registration, self.regain_at, self.deliveries.deadline(), self.channels.deadline(now.steady)];
        others.into_iter().flatten().fold(alive, Duration::min)
    }

    /// The server is there, or we are not reading and cannot know: either way no reason to ask.
    pub(super) fn heard(&mut self, now: Moment) {
        self.last_heard = now.steady;
        self.asked_alive = None;
    }

    fn finish(&mut self, now: Moment) -> Vec<Action> {
        if self.registered && !self.closed {
            self.deliveries.pump(now.steady, &mut self.actions);
        }
        let mut actions = std::mem::take(&mut self.actions);
        if let Some(end) = actions.iter().position(|action| matches!(action, Action::Close(_))) {
            actions.truncate(end + 1);
            self.closed = true;
        }
        actions
    }

    fn dispatch(&mut self, message: &Message, now: Moment) {
        match message.command.as_str() {
            "PING" => self.write(&["PONG"], Some(message.param(0))),
            "PONG" => self.deliveries.pong(message.text(), &mut self.actions),
            "ERROR" => self.close(Closing::Lost(text::one_line(message.text(), MAX_REASON))),
            "CAP" | "AUTHENTICATE" | "900" | "902" | "903" | "904" | "905" | "906" | "907" | "908" => {
                self.registration.handle(message, &mut self.actions);
            }
            "001" => self.welcome(message, now),
            "005" => self.server.learn(&message.params),
            "376" | "422" => self.motd_ended(now),
            "396" => message.param(1).clone_into(&mut self.own.host),
            "BATCH" => self.batches.handle(message),
            "JOIN" | "PART" | "KICK" | "NICK" | "QUIT" | "CHGHOST" => self.presence(message, now),
            "PRIVMSG" => self.private_message(message, now),
            "ACK" => {
                if let Some(label) = message.tag("label") {
                    self.deliveries.labelled(label, None, &mut self.actions);
                }
            }
            // A person who is away still got it; where echoes are on, the echo follows and says more.
            "301" if !self.registration.has("echo-message") => {
                if let Some(label) = self.label(message) {
                    self.deliveries.labelled(&label, None, &mut self.actions);
                }
            }
            "330" => {
                self.deliveries.is_logged_in(message.param(1), message.param(2), &self.server);
                self.people.met(message.param(2), message.param(1), &self.server, now.steady);
            }
            "318" => self.deliveries.whois_ended(message.param(1), &self.server, &mut self.actions),
            _ => self.refusal(message, now),
        }
    }

    fn welcome(&mut self, message: &Message, now: Moment) {
        if self.registered {
            return;
        }
        if let Err(closing) = self.registration.welcome() {
            self.close(closing);
            return;
        }
        self.registered = true;
        message.param(0).clone_into(&mut self.own.nick);
        let address = message.text().rsplit(' ').next().unwrap_or_default();
        if let Some((front, host)) = address.split_once('@')
            && let Some((nick, user)) = front.split_once('!')
            && nick == self.own.nick
        {
            user.clone_into(&mut self.own.user);
            host.clone_into(&mut self.own.host);
        }
        if let Some(time) = message.tag("time").and_then(Timestamp::parse_rfc3339) {
            self.skew = time.0.saturating_sub(now.wall.0);
        }
        self.report(Report::Registered { nick: message.param(0).to_owned() });
        if self.settings.allowed.needs_accounts() && !self.registration.has("account-tag") {
            let text = "the server does not name accounts: accounts in dm_allowed_users match nobody";
            self.report(Report::Warning { text: text.to_owned() });
        }
        self.channels.join_all(now.steady, &mut self.actions);
        self.look_for_nick(now);
    }

    /// The server has said everything about itself by now, also how long a nick may be.
    fn motd_ended(&mut self, now: Moment) {
        if self.registered {
            self.look_for_nick(now);
        }
    }

    /// Numerics and FAIL lines that say no to something we sent.
    fn refusal(&mut self, message: &Message, now: Moment) {
        let command = message.command.as_str();
        let reason = format!("{} ({command})", text::one_line(message.text(), MAX_REASON));
        match command {
            "421" if message.param(1).eq_ignore_ascii_case("CAP") => {
                self.registration.capabilities_unknown(&mut self.actions);
            }
            "432" | "433" | "436" | "437" if !self.registered => self.nick_taken(reason),
            "433" | "436" => {}
            "463" | "464" | "465" | "466" if !self.registered => self.close(Closing::Rejected(reason)),
            // Without a history it goes on as well.
            "FAIL" if message.param(0) == "CHATHISTORY" => {
                self.report(Report::Warning { text: format!("no history: {reason}") });
            }
            "FAIL" => {
                let target = message.params.get(2).map_or("", String::as_str).to_owned();
                self.line_refused(message, &target, &reason);
            }
            _ if command.len() == 3 && command.starts_with(['4', '5', '7']) => {
                let target = message.param(1);
                if self.channels.is_asked(target, &self.server) {
                    let lost = self.channels.lost(target, reason, &self.server, now.steady);
                    self.actions.extend(lost.map(Action::Report));
                } else {
                    self.line_refused(message, target, &reason);
                }
            }
            _ => {}
        }
    }

    fn line_refused(&mut self, message: &Message, target: &str, reason: &str) {
        let label = self.label(message);
        self.deliveries.refused(target, label.as_deref(), reason, &self.server, &mut self.actions);
    }

    /// The label of ours that this line responds to.
    fn label(&self, message: &Message) -> Option<String> {
        let label = message.tag("label").or_else(|| self.batches.label(message.tag("batch")));
        label.map(str::to_owned)
    }

    fn nick_taken(&mut self, reason: String) {
        match self.registration.next_nick() {
            Some(nick) => {
                self.write(&["NICK", &nick], None);
                self.own.nick = nick;
            }
            None => self.close(Closing::Rejected(reason)),
        }
    }

    /// The configured nick as this server would write it.
    fn wanted_nick(&self) -> &str {
        let nick = &self.settings.config.nick;
        text::prefix(nick, self.server.nick_length.unwrap_or(nick.len()))
    }

    fn has_wanted_nick(&self) -> bool {
        self.server.same(&self.own.nick, self.wanted_nick())
    }

    /// Plans the next try for the configured nick, or ends the tries.
    fn look_for_nick(&mut self, now: Moment) {
        self.regain_at = match (self.has_wanted_nick(), self.regain_at) {
            (true, _) => None,
            (false, Some(at)) => Some(at),
            (false, None) => Some(now.steady + REGAIN_EVERY),
        };
    }

    fn regain(&mut self, now: Moment) {
        self.regain_at = Some(now.steady + REGAIN_EVERY);
        let nick = self.wanted_nick().to_owned();
        self.write(&["NICK", &nick], None);
    }

    fn is_me(&self, nick: &str) -> bool {
        self.server.same(nick, &self.own.nick)
    }

    fn presence(&mut self, message: &Message, now: Moment) {
        let Some(source) = message.source.clone() else { return };
        let mine = self.is_me(&source.nick);
        match message.command.as_str() {
            "JOIN" if mine => {
                self.learn_address(&source);
                let joined = self.channels.joined(message.param(0), &self.server, now.steady);
                self.actions.extend(joined.map(Action::Report));
            }
            "PART" if mine => self.out_of(message.param(0), "we were taken out".to_owned(), now),
            "KICK" if self.is_me(message.param(1)) => {
                let reason = text::one_line(message.text(), MAX_REASON);
                self.out_of(message.param(0), format!("kicked by {}: {reason}", source.nick), now);
            }
            "NICK" => self.renamed(&source.nick, message.param(0), mine, now),
            "QUIT" if !mine => {
                self.people.left(&source.nick, &self.server);
                self.nick_is_free(&source.nick, now);
            }
            "CHGHOST" if mine => {
                message.param(0).clone_into(&mut self.own.user);
                message.param(1).clone_into(&mut self.own.host);
            }
            _ => {}
        }
    }

    fn renamed(&mut self, old: &str, new: &str, mine: bool, now: Moment) {
        self.people.renamed(old, new, &self.server);
        if mine {
            new.clone_into(&mut self.own.nick);
            self.report(Report::Renamed { nick: new.to_owned() });
            self.look_for_nick(now);
        } else {
            self.nick_is_free(old, now);
        }
    }

    fn nick_is_free(&mut self, nick: &str, now: Moment) {
        if self.regain_at.is_some() && self.server.same(nick, self.wanted_nick()) {
            self.regain(now);
        }
    }

    fn out_of(&mut self, channel: &str, reason: String, now: Moment) {
        let lost = self.channels.lost(channel, reason, &self.server, now.steady);
        self.actions.extend(lost.map(Action::Report));
    }

    fn learn_address(&mut self, source: &Source) {
        if !source.user.is_empty() && !source.host.is_empty() {
            source.user.clone_into(&mut self.own.user);
            source.host.clone_into(&mut self.own.host);
        }
    }

    fn write(&mut self, words: &[&str], trailing: Option<&str>) {
        self.actions.push(Action::Write(line(words, trailing)));
    }

    fn report(&mut self, report: Report) {
        self.actions.push(Action::Report(report));
    }

    fn close(&mut self, closing: Closing) {
        self.actions.push(Action::Close(closing));
    }
}
