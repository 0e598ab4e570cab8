//! The local API as the chat needs it: send, poll, and whether something runs.

use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ChatError;
use super::lines::MAX_LINE_BYTES;
use crate::config::{ApiConfig, Secret};

/// Longest time in which nothing comes; polls wait less.
const SILENCE_MAX: Duration = Duration::from_secs(40);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer of the daemon, in bytes.
const MAX_RESPONSE_BYTES: u64 = 16 << 20;

/// The local API of the daemon.
#[derive(Clone)]
pub(in crate::cli) struct ApiClient {
    http: ureq::Agent,
    base: String,
    token: Option<Secret>,
}

/// One conversation with the daemon.
#[derive(Clone)]
pub(super) struct Client {
    api: ApiClient,
    agent: Option<String>,
    conversation: String,
}

/// What a poll has brought.
#[derive(Deserialize)]
pub(super) struct News {
    pub(super) messages: Vec<Incoming>,
    #[serde(default)]
    pub(super) draft: Option<Piece>,
}

/// A piece of what is being written.
#[derive(Deserialize)]
pub(in crate::cli) struct Piece {
    pub(super) number: u64,
    pub(super) from: usize,
    pub(super) content: String,
}

#[derive(Deserialize)]
pub(super) struct Incoming {
    pub(super) id: i64,
    #[serde(default)]
    pub(super) content: String,
    #[serde(default)]
    pub(super) in_reply_to: Vec<String>,
}

#[derive(Deserialize)]
struct Status {
    busy: Vec<String>,
}

type Reply = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

impl ApiClient {
    pub(in crate::cli) fn new(api: &ApiConfig) -> Result<Self, ChatError> {
        if !api.enabled {
            return Err(ChatError::Disabled);
        }
        let host = if api.bind.is_unspecified() { std::net::IpAddr::from([127, 0, 0, 1]) } else { api.bind };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(SILENCE_MAX))
            .max_redirects(0)
            .build();
        let base = format!("http://{}/api", std::net::SocketAddr::new(host, api.port));
        Ok(Self { http: config.into(), base, token: api.auth_token.clone() })
    }

    /// `path` is what follows `/api/`.
    pub(in crate::cli) fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, ChatError> {
        let request = self.authorised(self.http.post(format!("{}/{path}", self.base)));
        self.read(request.content_type("application/json").send(body.to_string()))
    }

    pub(in crate::cli) fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ChatError> {
        self.read(self.authorised(self.http.get(format!("{}/{path}", self.base))).call())
    }

    /// As a part of a path or a query.
    pub(in crate::cli) fn encoded(&self, text: &str) -> String {
        percent_encoded(text)
    }

    fn authorised<T>(&self, request: ureq::RequestBuilder<T>) -> ureq::RequestBuilder<T> {
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {}", token.reveal())),
            None => request,
        }
    }

    /// An answer that goes on for as long as the daemon runs; it says something at least every
    /// [`SILENCE_MAX`].
    pub(in crate::cli) fn stream(&self, path: &str) -> Result<impl std::io::Read + use<>, ChatError> {
        let request = self.authorised(self.http.get(format!("{}/{path}", self.base)));
        let request = request.config().timeout_global(None).timeout_per_read(Some(SILENCE_MAX)).build();
        match request.call() {
            Ok(response) if response.status().as_u16() == 200 => Ok(response.into_body().into_reader()),
            refused => Err(self.read::<serde_json::Value>(refused).err().unwrap_or(ChatError::Gone)),
        }
    }

    fn unreachable(&self, reason: String) -> ChatError {
        ChatError::Unreachable { address: self.base.clone(), reason }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, response: Reply) -> Result<T, ChatError> {
        let address = || self.base.clone();
        let unreachable = |reason: String| self.unreachable(reason);
        let mut response = response.map_err(|error| unreachable(error.to_string()))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let body = body.map_err(|error| unreachable(error.to_string()))?;
        if status == 401 {
            return Err(ChatError::Token { address: address() });
        }
        if status >= 400 {
            let message = serde_json::from_str::<Value>(&body)
                .ok()
                .and_then(|value| value["error"]["message"].as_str().map(str::to_owned));
            return Err(match message {
                Some(message) => ChatError::Refused(message),
                None => unreachable(format!("not the API of this daemon: status {status}")),
            });
        }
        serde_json::from_str(&body)
            .map_err(|error| unreachable(format!("not the API of this daemon: {error}")))
    }
}

impl Client {
    pub(super) fn new(api: &ApiConfig, agent: Option<String>, session: &str) -> Result<Self, ChatError> {
        let conversation = format!("chat:{}:{session}", agent.as_deref().unwrap_or("default"));
        Ok(Self { api: ApiClient::new(api)?, agent, conversation })
    }

    /// Returns after the daemon has stored the message.
    pub(super) fn send(&self, id: &str, text: &str, attachments: &[Value]) -> Result<(), ChatError> {
        if text.len() > MAX_LINE_BYTES {
            return Err(ChatError::TooLong);
        }
        let name = std::env::var("USER").ok().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "you".to_owned());
        let mut body = json!({
            "conversation_id": self.conversation, "sender_id": name, "sender_name": name,
            "content": text, "message_id": id,
        });
        if let Some(agent) = &self.agent {
            body["agent_id"] = json!(agent);
        }
        if !attachments.is_empty() {
            body["attachments"] = json!(attachments);
        }
        self.api.post::<Value>("portal/send", &body).map(drop)
    }

    /// Messages above `after`; asking with `after` takes those up to it off the list.
    pub(super) fn poll(&self, after: i64, wait_seconds: u64) -> Result<Vec<Incoming>, ChatError> {
        Ok(self.poll_for(after, wait_seconds, "")?.messages)
    }

    /// The same, or what is being written and was not seen: bytes behind `seen` of the draft `number`.
    pub(super) fn watch(
        &self,
        after: i64,
        wait_seconds: u64,
        (number, seen): (u64, usize),
    ) -> Result<News, ChatError> {
        self.poll_for(after, wait_seconds, &format!("&draft={number}&from={seen}"))
    }

    fn poll_for(&self, after: i64, wait_seconds: u64, more: &str) -> Result<News, ChatError> {
        let conversation = percent_encoded(&self.conversation);
        self.api.get(&format!("portal/poll/{conversation}?after={after}&wait={wait_seconds}{more}"))
    }

    /// True while processes of this conversation run.
    pub(super) fn is_busy(&self) -> Result<bool, ChatError> {
        let status: Status = self.api.get("status")?;
        let conversation = format!("portal:{}", self.conversation);
        Ok(status.busy.contains(&conversation))
    }
}

/// As a part of a path.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b':') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_session_is_one_part_of_a_path() {
        assert_eq!(super::percent_encoded("chat:main:a/b ?é"), "chat:main:a%2Fb%20%3F%C3%A9");
    }
}
