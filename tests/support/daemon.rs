//! The real binary in a temporary folder, and a client for its webhook.

#![allow(dead_code, unreachable_pub)] // every test file uses a part of this

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

#[path = "replay.rs"]
mod replay;

use crossbeam_channel::{Sender, bounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use spacebot::db::{Db, DbError};

/// Longest wait for anything that should happen.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A config and data folder; the daemon may be started in it again and again.
pub struct Home {
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    pub webhook: u16,
    pub api: u16,
    more: String,
}

/// Below the ports that the kernel gives to clients.
const FIRST_PORT: u16 = 15_000;
const PORTS: u16 = 15_000;

/// A free port that no other test of this process got or gets.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(PORTS)).unwrap();
    for _ in 0..PORTS {
        let offset = (start + NEXT.fetch_add(1, Ordering::SeqCst) % PORTS) % PORTS;
        let port = FIRST_PORT + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

impl Home {
    /// `more` is appended to the config.
    pub fn new(more: &str) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut home = Self::at(temporary.path(), more);
        home._temporary = Some(temporary);
        home
    }

    pub fn at(folder: &Path, more: &str) -> Self {
        let (webhook, api) = (free_port(), free_port());
        let home = Self { folder: folder.to_owned(), _temporary: None, webhook, api, more: String::new() };
        home.with(more)
    }

    pub fn with(mut self, more: &str) -> Self {
        self.configure(more);
        self
    }

    pub fn configure(&mut self, more: &str) {
        self.more = more.to_owned();
        std::fs::write(self.config(), self.text(more)).unwrap();
    }

    /// The whole config with `more` in it.
    pub fn text(&self, more: &str) -> String {
        // Tests of something else do without the model: loading it takes longer than most of them.
        let embedding =
            if more.contains("[memory.embedding]") { "" } else { "[memory.embedding]\nenabled = false\n" };
        format!(
            "{more}\n{embedding}[messaging.webhook]\nport = {}\n[api]\nport = {}\n",
            self.webhook, self.api
        )
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join("agents/main/data/spacebot.db")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spacebot"));
        command.args(arguments).arg("--config").arg(self.config());
        command.env_clear().env("SPACEBOT_DIR", &self.folder).env("PATH", std::env::var("PATH").unwrap());
        command.env("HOME", &self.folder).env("USER", "una").stdin(Stdio::null());
        command
    }

    pub fn start(&self) -> Daemon<'_> {
        self.begin(self.command(&["run", "--no-chat"]))
    }

    /// As [`Home::start`], with more in its environment.
    pub fn start_with(&self, variables: &[(&str, &OsStr)]) -> Daemon<'_> {
        let mut command = self.command(&["run", "--no-chat"]);
        command.envs(variables.iter().copied());
        self.begin(command)
    }

    /// As [`Home::start`], by another program that ends in becoming the one which it is given, and with
    /// a socket on which the daemon tells systemd what it does.
    pub fn start_by(&self, program: &[&str], notify: &Path) -> Daemon<'_> {
        let own = self.command(&["run", "--no-chat"]);
        let mut words = program.iter().map(OsStr::new).chain([own.get_program()]).chain(own.get_args());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_clear().env("NOTIFY_SOCKET", notify);
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.begin(command)
    }

    fn begin(&self, mut command: Command) -> Daemon<'_> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.starts_with("agent:")));
        if !ready {
            let mut log = String::new();
            child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("the daemon did not start: {log}");
        }
        Daemon { child, home: self }
    }

    pub fn chat_once(&self, text: &str) -> Output {
        self.command(&["chat", "--once", text]).output().unwrap()
    }
}

impl Drop for Home {
    /// Whatever a test was about: each run that it has left in a journal comes to the same once more.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            replay::every_run(&self.folder);
        }
    }
}

#[must_use]
pub struct Daemon<'a> {
    child: Child,
    pub home: &'a Home,
}

impl Daemon<'_> {
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Asks it to stop and returns how it ended and what it logged.
    pub fn stop(mut self) -> (ExitStatus, String) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }

    /// The power cut.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn client(&self, conversation: &str) -> Client {
        Client::new(self.home.webhook, conversation)
    }

    pub fn status(&self) -> Value {
        get(&format!("http://127.0.0.1:{}/api/status", self.home.api)).1
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // A test that fails half-way leaves nothing running.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}

pub fn get(url: &str) -> (u16, Value) {
    let mut response = agent().get(url).call().unwrap();
    (
        response.status().as_u16(),
        serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap(),
    )
}

/// One conversation over the webhook; answers are acknowledged with `after`.
pub struct Client {
    http: ureq::Agent,
    base: String,
    conversation: String,
    after: i64,
    /// Answers by the platform id of the message they answer.
    pub answers: BTreeMap<String, Vec<String>>,
    /// What was said without being asked.
    pub unasked: Vec<String>,
    /// Everything that was said, in order.
    pub said: Vec<String>,
}

impl Client {
    pub fn new(port: u16, conversation: &str) -> Self {
        let base = format!("http://127.0.0.1:{port}");
        Self {
            http: agent(),
            base,
            conversation: conversation.to_owned(),
            after: 0,
            answers: BTreeMap::new(),
            unasked: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The status and body, or nothing when the daemon did not answer.
    pub fn try_send(&self, id: &str, text: &str) -> Option<(u16, Value)> {
        let body = json!({ "conversation_id": self.conversation, "sender_id": "una", "content": text, "message_id": id });
        let mut response = self.http.post(format!("{}/send", self.base)).send(body.to_string()).ok()?;
        let text = response.body_mut().read_to_string().ok()?;
        Some((response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    pub fn send(&self, id: &str, text: &str) {
        let (status, body) = self.try_send(id, text).expect("the daemon answers");
        assert_eq!(status, 202, "{body}");
    }

    /// Polls once; true when something came.
    pub fn poll(&mut self, wait_seconds: u64) -> bool {
        let url =
            format!("{}/poll/{}?after={}&wait={wait_seconds}", self.base, self.conversation, self.after);
        let Ok(mut response) = self.http.get(url).call() else { return false };
        let Ok(text) = response.body_mut().read_to_string() else { return false };
        let body: Value = serde_json::from_str(&text).unwrap();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        for message in &messages {
            self.after = self.after.max(message["id"].as_i64().unwrap());
            let said = message["content"].as_str().unwrap_or_default().to_owned();
            let asked = message["in_reply_to"].as_array().cloned().unwrap_or_default();
            if asked.is_empty() {
                self.unasked.push(said.clone());
            }
            self.said.push(said.clone());
            for id in &asked {
                let said = said.clone();
                self.answers.entry(id.as_str().unwrap().to_owned()).or_default().push(said);
            }
        }
        !messages.is_empty()
    }

    /// Waits for the answer to one message.
    pub fn answer(&mut self, id: &str) -> String {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(answer) = self.answers.get(id).and_then(|answers| answers.last()) {
                return answer.clone();
            }
            self.poll(5);
        }
        panic!("{id} was not answered; there is {:?}", self.answers);
    }

    /// Waits until something is said that holds `text`.
    pub fn hear(&mut self, text: &str) -> String {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(said) = self.said.iter().find(|said| said.contains(text)) {
                return said.clone();
            }
            self.poll(5);
        }
        panic!("nobody said {text:?}, but {:?}", self.said);
    }

    pub fn ask(&mut self, id: &str, text: &str) -> String {
        self.send(id, text);
        self.answer(id)
    }
}

/// Keeps everybody else from writing to a database: no commit of the daemon comes about until the
/// release, and each gives up after 5 s.
pub struct HeldDatabase {
    release: Sender<()>,
    holder: std::thread::JoinHandle<Result<(), DbError>>,
}

impl HeldDatabase {
    pub fn hold(path: &Path) -> Self {
        let db = Db::open_inline(path, None).unwrap();
        let ((entered, holding), (release, released)) = (bounded(1), bounded::<()>(1));
        let holder = std::thread::spawn(move || {
            db.write(move |_| {
                entered.send(()).unwrap();
                released.recv().ok(); // a test that failed releases too
                Ok(())
            })
        });
        holding.recv_timeout(DEADLINE).unwrap();
        Self { release, holder }
    }

    pub fn release(self) {
        self.release.send(()).unwrap();
        self.holder.join().unwrap().unwrap();
    }
}

/// Processes with this text in their command line.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(marker) {
            found.push(pid);
        }
    }
    found
}

/// Looks again and again until `condition` holds or the deadline has passed.
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < deadline, "{what}: not within {} ms", deadline.as_millis());
        std::thread::yield_now();
    }
}

/// For what is not installed: fails in CI, says so elsewhere.
pub fn not_run(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "not run: {reason}");
    println!("not run: {reason}");
}
