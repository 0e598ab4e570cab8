//! `spacebot chat`: a conversation with the running daemon over its local API.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::config::{ApiConfig, Secret};
use crate::error::{Fault, Kind};
use crate::thread;

/// Seconds that one poll waits at the daemon.
const POLL_WAIT_SECONDS: u64 = 20;
/// How long `--once` waits for its answer.
const ONCE_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause after a daemon that did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest answer of the daemon, in bytes.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    #[error("no daemon answers at {address}: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("the daemon said {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("no answer within {} seconds", ONCE_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("the API is switched off in the config")]
    Disabled,
}

impl Fault for ChatError {
    fn kind(&self) -> Kind {
        match self {
            ChatError::Unreachable { .. } | ChatError::NoAnswer => Kind::Transient,
            ChatError::Refused { .. } | ChatError::Disabled => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            ChatError::Unreachable { .. } => {
                Some("start it with `spacebot run`, or name its config with --config")
            }
            ChatError::Disabled => Some("set api.enabled = true"),
            _ => None,
        }
    }
}

/// One terminal's end of a conversation.
#[derive(Clone)]
pub struct Chat {
    http: ureq::Agent,
    base: String,
    token: Option<Secret>,
    agent: Option<String>,
    session: String,
}

#[derive(Deserialize)]
struct Messages {
    messages: Vec<Incoming>,
}

#[derive(Deserialize)]
struct Incoming {
    id: i64,
    #[serde(default)]
    content: String,
    #[serde(default)]
    in_reply_to: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    busy: Vec<String>,
}

impl Chat {
    /// # Errors
    /// The config switches the API off.
    pub fn new(api: &ApiConfig, agent: Option<String>, session: String) -> Result<Self, ChatError> {
        if !api.enabled {
            return Err(ChatError::Disabled);
        }
        let host = if api.bind.is_unspecified() { std::net::IpAddr::from([127, 0, 0, 1]) } else { api.bind };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(POLL_WAIT_SECONDS + 20)))
            .max_redirects(0)
            .build();
        let base = format!("http://{}/api", std::net::SocketAddr::new(host, api.port));
        Ok(Self { http: config.into(), base, token: api.auth_token.clone(), agent, session })
    }

    /// Sends one message and prints what answers it, until nothing runs for it any more.
    ///
    /// # Errors
    /// The daemon cannot be reached, refuses, or does not answer in time.
    pub fn once(&self, text: &str, out: &mut impl Write) -> Result<(), ChatError> {
        let id = self.send(text)?;
        let (deadline, mut after, mut answered) = (Instant::now() + ONCE_TIMEOUT, 0, false);
        while Instant::now() < deadline {
            let messages = self.poll(after, POLL_WAIT_SECONDS)?;
            for message in &messages {
                after = after.max(message.id);
                if message.in_reply_to.contains(&id) {
                    answered = true;
                    self.print(out, &message.content);
                }
            }
            if answered && !self.is_busy()? {
                self.poll(after, 0)?;
                return Ok(());
            }
        }
        if answered { Ok(()) } else { Err(ChatError::NoAnswer) }
    }

    /// Reads lines from `input` until it ends or says `/quit`, and prints answers as they come.
    ///
    /// # Errors
    /// The daemon cannot be reached at the start.
    pub fn interactive(&self, input: impl BufRead, prompt: bool) -> Result<(), ChatError> {
        self.is_busy()?;
        let over = Arc::new(AtomicBool::new(false));
        let (listener, stop) = (self.clone(), over.clone());
        let printing = thread::spawn("chat-listen", move || listener.listen(&stop));
        if let Err(error) = printing {
            return Err(ChatError::Unreachable { address: self.base.clone(), reason: error.to_string() });
        }
        if prompt {
            println!("Write a message and press Enter; /quit leaves.");
        }
        for line in input.lines() {
            let Ok(line) = line else { break };
            let line = line.trim();
            if matches!(line, "/quit" | "/exit") {
                break;
            }
            if !line.is_empty()
                && let Err(error) = self.send(line)
            {
                eprintln!("not sent: {error}");
            }
        }
        over.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn listen(&self, over: &AtomicBool) {
        let mut after = 0;
        while !over.load(Ordering::SeqCst) {
            match self.poll(after, POLL_WAIT_SECONDS) {
                Ok(messages) => {
                    for message in messages {
                        after = after.max(message.id);
                        self.print(&mut std::io::stdout(), &message.content);
                    }
                }
                Err(_) => std::thread::park_timeout(RETRY_PAUSE),
            }
        }
    }

    fn print(&self, out: &mut impl Write, text: &str) {
        // A terminal that is gone ends the input as well.
        writeln!(out, "{}", printable(text)).and_then(|()| out.flush()).ok();
    }

    fn send(&self, text: &str) -> Result<String, ChatError> {
        let id = uuid::Uuid::now_v7().to_string();
        let name = std::env::var("USER").unwrap_or_else(|_| "you".to_owned());
        let mut body = json!({
            "conversation_id": self.conversation(), "sender_id": name, "sender_name": name,
            "content": text, "message_id": id,
        });
        if let Some(agent) = &self.agent {
            body["agent_id"] = json!(agent);
        }
        let request = self.authorised(self.http.post(format!("{}/portal/send", self.base)));
        let sent = request.content_type("application/json").send(body.to_string());
        self.read::<serde_json::Value>(sent)?;
        Ok(id)
    }

    /// Messages above `after`; asking with `after` takes those up to it off the list.
    fn poll(&self, after: i64, wait: u64) -> Result<Vec<Incoming>, ChatError> {
        let url = format!("{}/portal/poll/{}?after={after}&wait={wait}", self.base, self.conversation());
        Ok(self.read::<Messages>(self.authorised(self.http.get(url)).call())?.messages)
    }

    /// True while processes of this conversation run.
    fn is_busy(&self) -> Result<bool, ChatError> {
        let status: Status =
            self.read(self.authorised(self.http.get(format!("{}/status", self.base))).call())?;
        let conversation = format!("portal:{}", self.conversation());
        Ok(status.busy.contains(&conversation))
    }

    fn conversation(&self) -> String {
        format!("chat:{}:{}", self.agent.as_deref().unwrap_or("default"), self.session)
    }

    fn authorised<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.reveal())),
            None => request,
        }
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, ChatError> {
        let unreachable = |reason: String| ChatError::Unreachable { address: self.base.clone(), reason };
        let mut response = response.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let body = body.map_err(|error| unreachable(error.to_string()))?;
        if status >= 400 {
            let message = serde_json::from_str::<serde_json::Value>(&body)
                .ok()
                .and_then(|value| value["error"]["message"].as_str().map(str::to_owned))
                .unwrap_or(body);
            return Err(ChatError::Refused { status, message });
        }
        serde_json::from_str(&body)
            .map_err(|error| unreachable(format!("not the API of this daemon: {error}")))
    }
}

/// Text for a terminal: what would move the cursor or change colours is dropped.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control() || matches!(character, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_terminal_gets_no_escape_sequences() {
        assert_eq!(super::printable("a\u{1b}[31mb\nc\td\r\u{7}"), "a[31mb\nc\td");
    }
}
