//! What a handler answers, and its bytes on the wire.

use std::fmt;
use std::io::{IoSlice, Write as _};

use serde::Serialize;

use super::ServerHandle;
use crate::clock::Timestamp;
use crate::error::Kind;
use crate::thread;

/// Every body of ours is JSON unless the handler says otherwise.
const JSON: &str = "application/json";

/// Told whether the bytes of the response were handed to the network.
pub(super) type AfterSent = Box<dyn FnOnce(bool, Settled) + Send>;

/// What follows a response is done when this is dropped; whoever goes on with it elsewhere takes it along.
#[derive(Default)]
pub struct Settled(Option<(ServerHandle, String)>);

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some((server, key)) = self.0.take() {
            server.wake(&key);
        }
    }
}

pub struct Response {
    status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    after_sent: Option<AfterSent>,
    wake_after: Option<String>,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body, after_sent: None, wake_after: None }
    }

    pub fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, JSON, body),
            Err(error) => {
                log::error!("an answer could not be written as JSON: {error}");
                Self::error(500, Kind::Bug, "The answer could not be written.")
            }
        }
    }

    /// `{"error":{"kind":…,"message":…}}`; the message is a plain sentence for the caller.
    pub fn error(status: u16, kind: Kind, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self::json(status, &serde_json::json!({ "error": { "kind": kind, "message": message } }))
    }

    /// `value` must be printable ASCII; anything else is left out.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            self.headers.push((name, value));
        } else {
            log::error!("the header {name} was left out, its value is not printable: {value:?}");
        }
        self
    }

    /// Called exactly once: with true after the last byte went to the kernel, with false when that
    /// did not happen (the client went away, time-out, stop, or a HEAD request). It runs before the
    /// next request of the same connection and must not block.
    #[must_use]
    pub fn after_sent(mut self, callback: impl FnOnce(bool, Settled) + Send + 'static) -> Self {
        self.after_sent = Some(Box::new(callback));
        self
    }

    /// Wakes the requests parked under `key` after the response and what follows it are done
    /// ([`Settled`]), however that went.
    #[must_use]
    pub fn wake_after(mut self, key: impl Into<String>) -> Self {
        self.wake_after = Some(key.into());
        self
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// A header that the handler set.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(&header.1)
    }

    /// Runs the callback as the server would, for tests of handlers.
    pub fn finish(mut self, sent: bool) {
        if let Some(callback) = self.after_sent.take() {
            callback(sent, Settled::default());
        }
    }

    /// The whole response as bytes, for the few that are written without a worker.
    pub(super) fn into_bytes(self, now: Timestamp) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        write_head(&mut bytes, &self, Connection::Close, HttpDate::default().at(now));
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// What the `Connection` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Stays open, as HTTP/1.1 does without a word.
    Open,
    /// Stays open, and an HTTP/1.0 client must be told.
    KeepAlive,
    Close,
}

/// The head of an answer whose end is the end of the connection.
fn write_endless_head(out: &mut Vec<u8>, content_type: &str, date: &str) {
    // Writing into a Vec cannot fail.
    write!(
        out,
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nCache-Control: no-store\r\nContent-Type: {content_type}\r\n\
         Connection: close\r\n\r\n"
    )
    .ok();
}

fn write_head(out: &mut Vec<u8>, response: &Response, connection: Connection, date: &str) {
    let reason = ::http::StatusCode::from_u16(response.status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown");
    // Writing into a Vec cannot fail.
    write!(out, "HTTP/1.1 {} {reason}\r\nDate: {date}\r\nCache-Control: no-store\r\n", response.status).ok();
    if !matches!(response.status, 204 | 304) {
        let length = response.body.len();
        write!(out, "Content-Type: {}\r\nContent-Length: {length}\r\n", response.content_type).ok();
    }
    for (name, value) in &response.headers {
        write!(out, "{name}: {value}\r\n").ok();
    }
    out.extend_from_slice(match connection {
        Connection::Open => b"\r\n",
        Connection::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Connection::Close => b"Connection: close\r\n\r\n",
    });
}

/// A response on its way out. Dropped before [`Outgoing::finish`], it counts as not sent.
pub(super) struct Outgoing {
    pub(super) head: Vec<u8>,
    body: Vec<u8>,
    sent: usize,
    pub(super) connection: Connection,
    head_only: bool,
    after_sent: Option<AfterSent>,
    wake_after: Option<(ServerHandle, String)>,
}

impl Outgoing {
    /// `head` is an empty buffer to write into; it can be taken back afterwards.
    pub(super) fn new(
        mut response: Response,
        server: &ServerHandle,
        connection: Connection,
        head_only: bool,
        (mut head, date): (Vec<u8>, &str),
    ) -> Self {
        write_head(&mut head, &response, connection, date);
        let has_body = !head_only && !matches!(response.status, 204 | 304);
        Self {
            head,
            body: if has_body { std::mem::take(&mut response.body) } else { Vec::new() },
            sent: 0,
            connection,
            head_only,
            after_sent: response.after_sent.take(),
            wake_after: response.wake_after.take().map(|key| (server.clone(), key)),
        }
    }

    /// The head of a stream.
    pub(super) fn beginning(content_type: &str, (mut head, date): (Vec<u8>, &str)) -> Self {
        write_endless_head(&mut head, content_type, date);
        let mut beginning = Self::piece(Vec::new());
        beginning.head = head;
        beginning
    }

    /// A piece of a stream.
    pub(super) fn piece(body: Vec<u8>) -> Self {
        Self {
            head: Vec::new(),
            body,
            sent: 0,
            connection: Connection::Close,
            head_only: false,
            after_sent: None,
            wake_after: None,
        }
    }

    /// What is still to be written, for one vectored write.
    pub(super) fn rest(&self) -> [IoSlice<'_>; 2] {
        let in_body = self.sent.saturating_sub(self.head.len());
        [IoSlice::new(&self.head[self.sent.min(self.head.len())..]), IoSlice::new(&self.body[in_body..])]
    }

    /// True when everything is written.
    pub(super) fn advance(&mut self, written: usize) -> bool {
        self.sent += written;
        self.sent >= self.size()
    }

    pub(super) fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Tells the handler that it was sent; a HEAD response carried nothing, so that is a no.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.settle(!self.head_only);
        std::mem::take(&mut self.head)
    }

    fn settle(&mut self, sent: bool) {
        let settled = Settled(self.wake_after.take());
        if let Some(callback) = self.after_sent.take()
            && let Err(panic) = thread::contained(|| callback(sent, settled))
        {
            log::error!("what follows an HTTP response panicked: {panic}");
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.settle(false);
    }
}

/// The `Date` header, written anew once a second.
#[derive(Default)]
pub(super) struct HttpDate {
    second: i64,
    text: String,
}

impl HttpDate {
    pub(super) fn at(&mut self, now: Timestamp) -> &str {
        let second = now.0.div_euclid(1000);
        if self.text.is_empty() || second != self.second {
            let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            self.text = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            self.second = second;
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_bytes_of_a_response() {
        let response = Response::error(413, Kind::Invalid, "Too long.").with_header("Allow", "GET");
        let bytes = response.into_bytes(Timestamp(784_111_777_000));
        let expected = "HTTP/1.1 413 Payload Too Large\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Cache-Control: no-store\r\nContent-Type: application/json\r\nContent-Length: 50\r\nAllow: GET\r\n\
            Connection: close\r\n\r\n{\"error\":{\"kind\":\"invalid\",\"message\":\"Too long.\"}}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn a_header_cannot_carry_a_line_break() {
        let response = Response::json(200, &1).with_header("X", "a\r\nSet-Cookie: b");
        assert!(response.headers.is_empty());
    }
}
