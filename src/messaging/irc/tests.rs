//! The protocol by fixtures: `tests/fixtures/irc/*.txt` hold what happens to a connection and, after
//! each of these, everything that it does about it. `UPDATE=1` writes anew what it does.
//!
//! What happens: `connect`, `registered CAPABILITIES` (connects and registers, without showing it),
//! `< LINE` from the server (`\xNN` is a byte), `say ID CONVERSATION TEXT`, `wait SECONDS`, `goodbye`,
//! `enter CHANNEL LINES` (its conversation has not begun) or `enter CHANNEL TIME` (it has), `kept CHANNEL` (a message
//! of it is on disk).

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{Action, Closing, Moment, Session};
use super::settings::Settings;
use crate::clock::Timestamp;
use crate::config::{IrcConfig, Secret};
use crate::id::{ConversationId, InstanceId, OutboxId};
use crate::message::{Beginning, Content, Delivery, Outbound};

/// 2026-11-21T10:00:00Z.
const START: Moment = Moment { wall: Timestamp(1_795_255_200_000), steady: Duration::from_secs(1000) };
/// Ticks within one `wait`; more means that the deadline does not move on.
const TICKS_MAX: usize = 1000;

struct Run {
    config: IrcConfig,
    session: Option<Session>,
    now: Moment,
}

impl Run {
    fn new() -> Self {
        let config = IrcConfig {
            instance: InstanceId::new("irc"),
            server: "irc.test".to_owned(),
            port: 6697,
            tls: true,
            tls_ca_file: None,
            nick: "bot".to_owned(),
            realname: "Spacebot".to_owned(),
            password: None,
            sasl_username: None,
            sasl_password: None,
            channels: Vec::new(),
            dm_allowed_users: Vec::new(),
            require_mention: true,
        };
        Self { config, session: None, now: START }
    }

    /// What the connection does about one line of a fixture; none for a line that sets something.
    fn perform(&mut self, line: &str) -> Option<Vec<Action>> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "config" => {
                self.configure(rest);
                None
            }
            "connect" => Some(self.connect()),
            "registered" => {
                self.register(rest);
                None
            }
            "<" => Some(self.hear(rest)),
            "say" => Some(self.say(rest)),
            "wait" => Some(self.wait(Duration::from_secs(rest.parse().expect("seconds")))),
            "enter" => {
                let (channel, state) = rest.split_once(' ').expect("enter CHANNEL LINES or a time");
                let beginning = match Timestamp::parse_rfc3339(state) {
                    Some(since) => Beginning::Known { since },
                    None => Beginning::New { lines: state.parse().expect("lines") },
                };
                let now = self.now;
                Some(self.session().enter(channel, Some(beginning), now))
            }
            "kept" => {
                let now = self.now;
                self.session().begun(rest, now);
                None
            }
            "goodbye" => Some(self.session().goodbye((!rest.is_empty()).then_some(rest))),
            _ => panic!("unknown line {line:?}"),
        }
    }

    fn configure(&mut self, setting: &str) {
        let (key, value) = setting.split_once(" = ").expect("key = value");
        let list = || value.split(", ").map(str::to_owned).collect();
        match key {
            "nick" => self.config.nick = value.to_owned(),
            "password" => self.config.password = Some(Secret::new(value)),
            "channels" => self.config.channels = list(),
            "allow" => self.config.dm_allowed_users = list(),
            "require_mention" => self.config.require_mention = value == "true",
            "sasl" => {
                let (user, password) = value.split_once(' ').expect("user password");
                self.config.sasl_username = Some(user.to_owned());
                self.config.sasl_password = Some(Secret::new(password));
            }
            _ => panic!("unknown setting {key}"),
        }
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("connected")
    }

    fn connect(&mut self) -> Vec<Action> {
        let settings = Arc::new(Settings::new(self.config.clone()).expect("settings"));
        let (session, actions) = Session::open(settings, "c1".to_owned(), self.now);
        self.session = Some(session);
        actions
    }

    fn register(&mut self, capabilities: &str) {
        self.connect();
        let nick = self.config.nick.clone();
        self.hear(&format!(":irc.test CAP * LS :{capabilities}"));
        for capability in capabilities.split_whitespace() {
            self.hear(&format!(":irc.test CAP {nick} ACK :{capability}"));
        }
        self.hear(&format!(":irc.test 001 {nick} :Welcome {nick}!~b@bot.host"));
        self.hear(&format!(
            ":irc.test 005 {nick} CASEMAPPING=rfc1459 CHANTYPES=# STATUSMSG=@+ NICKLEN=16 :are supported"
        ));
        self.hear(&format!(":irc.test 376 {nick} :End"));
        for channel in self.config.channels.clone() {
            self.hear(&format!(":{nick}!~b@bot.host JOIN {}", channel.split(' ').next().expect("name")));
        }
    }

    fn hear(&mut self, line: &str) -> Vec<Action> {
        let now = self.now;
        self.session().handle(&bytes(line), now)
    }

    fn say(&mut self, words: &str) -> Vec<Action> {
        let [id, conversation, text] = words.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("say ID CONVERSATION TEXT")
        };
        let repeated = text.split_once('*').and_then(|(times, text)| Some(text.repeat(times.parse().ok()?)));
        let outbound = Outbound {
            id: OutboxId(id.parse().expect("id")),
            instance: self.config.instance.clone(),
            conversation: ConversationId::new(conversation),
            content: Content::Text {
                text: repeated.unwrap_or_else(|| text.replace("\\n", "\n").replace("\\r", "\r")),
            },
            answers: Vec::new(),
            created_at: self.now.wall,
        };
        let now = self.now;
        self.session().say(outbound, now)
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        let until = Moment { wall: self.now.wall.plus(time), steady: self.now.steady + time };
        let mut actions = Vec::new();
        for _ in 0..TICKS_MAX {
            let now = self.now;
            let next = self.session().deadline(now);
            if next > until.steady {
                self.now = until;
                return actions;
            }
            let step = next.saturating_sub(now.steady);
            self.now = Moment { wall: now.wall.plus(step), steady: now.steady + step };
            let now = self.now;
            actions.extend(self.session().tick(now));
            if actions.iter().any(|action| matches!(action, Action::Close(_))) {
                self.now = until;
                return actions;
            }
        }
        panic!("the deadline does not move on");
    }
}

/// A line with its `\xNN`.
fn bytes(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn shown(action: &Action) -> String {
    match action {
        Action::Write(line) => format!("> {}", line.trim_end_matches(['\r', '\n'])),
        Action::Report(report) => format!("report {report}"),
        Action::Close(Closing::Lost(reason)) => format!("close, lost: {reason}"),
        Action::Close(Closing::Credentials(reason)) => format!("close, credentials: {reason}"),
        Action::Close(Closing::Rejected(reason)) => format!("close, rejected: {reason}"),
        Action::Progress(progress) => {
            let delivery = match &progress.delivery {
                Delivery::Sending => "sending".to_owned(),
                Delivery::Sent { platform_id: Some(id) } => format!("sent as {id}"),
                Delivery::Sent { platform_id: None } => "sent".to_owned(),
                Delivery::Refused { reason } => format!("refused: {reason}"),
                Delivery::Unknown { reason } => format!("unknown: {reason}"),
            };
            format!("answer {} {delivery}", progress.id)
        }
        Action::Deliver(arrival) => {
            let message = &arrival.inbound;
            let kind = if message.direct { "direct" } else { "company" };
            let addressed = if message.addressed { ", addressed" } else { "" };
            let at = message.sent_at.to_rfc3339();
            let mut earlier = String::new();
            for line in &arrival.earlier {
                let at = line.at.map_or_else(|| "?".to_owned(), Timestamp::to_rfc3339);
                let own = if line.own { ", own" } else { "" };
                write!(earlier, "\n        after {at} {}{own}: {}", line.sender_name, line.text)
                    .expect("string");
            }
            format!(
                "deliver {} from {} ({}) in {}, {kind}{addressed}, id {}, at {at}: {}{earlier}",
                message.conversation,
                message.sender_name,
                message.sender_id,
                message.place,
                message.platform_id,
                message.content
            )
        }
    }
}

fn played(fixture: &str) -> String {
    let mut run = Run::new();
    let mut text = String::new();
    for line in fixture.lines().filter(|line| !line.starts_with("    ")) {
        writeln!(text, "{line}").expect("string");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for action in run.perform(line).into_iter().flatten() {
            if let Action::Write(line) = &action {
                let line = line.trim_end_matches(['\r', '\n']);
                let bare = line
                    .strip_prefix('@')
                    .and_then(|tagged| tagged.split_once(' '))
                    .map_or(line, |(_, bare)| bare);
                // As the others receive it: with our address in front and a line end behind.
                assert!(bare.len() + ":bot!~b@bot.host ".len() + 2 <= 512, "too long: {line}");
                assert!(!line.contains(['\r', '\n']), "two lines in one: {line:?}");
            }
            writeln!(text, "    {}", shown(&action)).expect("string");
        }
    }
    text
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/irc");
    let files = std::fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[test]
fn every_fixture_plays_as_written() {
    let files = fixtures();
    assert!(files.len() >= 12, "only {} fixtures", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let written = std::fs::read_to_string(&file).expect("fixture");
        let played = played(&written);
        if played == written {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, played).expect("write");
            continue;
        }
        let differs = written.lines().zip(played.lines()).find(|(one, other)| one != other);
        wrong.push(format!("{}: {differs:?}", file.display()));
    }
    assert!(wrong.is_empty(), "written and played differ:\n{}", wrong.join("\n"));
}

#[test]
fn any_bytes_from_the_server_are_survived() {
    let words: [&[u8]; 12] = [
        b":irc.test",
        b"PRIVMSG",
        b"#pi",
        b":",
        b"@time=x;msgid=",
        b"\xff\xfe\0",
        b"CAP",
        b"LS",
        b"ACK",
        b"001",
        b"BATCH +",
        b" ",
    ];
    // A multiplicative generator: the seed is the test.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % below
    };
    for _ in 0..200 {
        let mut run = Run::new();
        run.config.channels = vec!["#pi".to_owned()];
        run.config.dm_allowed_users = vec!["*".to_owned()];
        run.connect();
        for _ in 0..50 {
            let line: Vec<u8> = (0..random(8)).flat_map(|_| words[random(words.len())].to_vec()).collect();
            let now = run.now;
            let actions = run.session().handle(&line, now);
            if actions.iter().any(|action| matches!(action, Action::Close(_))) {
                break;
            }
        }
    }
}
