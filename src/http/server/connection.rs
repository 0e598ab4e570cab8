//! One connection: its socket, what came and is not answered yet, and what it waits for.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::framing::{Buffer, Framing};
use super::response::Outgoing;
use super::table::Token;
use super::{Handler, Header, Later, MAX_HEADERS, Outcome, Request, Stream};

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) token: Token,
    pub(super) phase: Phase,
    /// When the phase is over, on the monotonic clock; what then happens depends on the phase.
    pub(super) deadline: Duration,
    pub(super) buffer: Buffer,
    pub(super) framing: Framing,
    /// When the first byte of the request in the buffer came.
    pub(super) began: Option<Duration>,
    /// When the request in the buffer was complete.
    pub(super) received: Duration,
    /// How often it was dispatched.
    pub(super) attempt: u32,
    pub(super) reservation: Option<Reservation>,
    /// Where the rest of an answer that has begun comes from.
    pub(super) rest: Option<Box<Stream>>,
}

/// What a connection in the table waits for.
pub(super) enum Phase {
    /// The first or the next bytes of a request.
    Reading,
    /// A wake of this key. `seen` is the number of wakes before the handler looked.
    Parked { key: String, seen: u64 },
    /// A worker, to dispatch the parked request again.
    Ready { expired: bool },
    /// The answer of somebody else.
    Awaiting(Later),
    /// Room to write.
    Writing(Outgoing),
    /// The client's end of the talk, after an answer that came before the whole request was read:
    /// closing at once would make the kernel take that answer back.
    Draining { left: usize },
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        handler: Arc<dyn Handler>,
        phase: Phase,
        deadline: Duration,
    ) -> Self {
        Self {
            stream,
            handler,
            token: Token::default(),
            phase,
            deadline,
            buffer: Buffer::default(),
            framing: Framing::default(),
            began: None,
            received: Duration::ZERO,
            attempt: 0,
            reservation: None,
            rest: None,
        }
    }

    /// Shows the complete request in the buffer to the handler; none if it cannot be read again,
    /// which the framing rules out.
    pub(super) fn ask(&self, expired: bool) -> Option<Outcome> {
        let bytes = self.buffer.bytes();
        let mut headers = [Header { name: "", value: b"" }; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(&bytes[..self.framing.head]).ok()?;
        let request = Request {
            method: parsed.method?,
            path: "",
            query: "",
            headers: parsed.headers,
            body: &bytes[self.framing.head..self.framing.total()],
            attempt: self.attempt,
            expired,
        };
        Some(self.handler.handle(&request.with_target(parsed.path?)))
    }

    /// Forgets the answered request; what came after it stays.
    pub(super) fn next_request(&mut self) {
        self.buffer.consume(self.framing.total());
        self.framing = Framing::default();
        self.began = None;
        self.attempt = 0;
        self.reservation = None;
    }
}

/// A share of the bytes that all connections may hold together.
pub(super) struct Reservation {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl Reservation {
    /// None when that would be more than `limit` in all.
    pub(super) fn take(held: &Arc<AtomicUsize>, bytes: usize, limit: usize) -> Option<Self> {
        let reservation = Self { held: held.clone(), bytes };
        let before = held.fetch_add(bytes, Ordering::Relaxed);
        // Dropping it gives the bytes back.
        (before.saturating_add(bytes) <= limit).then_some(reservation)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn reservations_are_bounded_and_given_back() {
        let held = Arc::new(AtomicUsize::new(0));
        let first = Reservation::take(&held, 60, 100).unwrap();
        assert!(Reservation::take(&held, 60, 100).is_none());
        assert_eq!(held.load(Ordering::Relaxed), 60);
        drop(first);
        assert!(Reservation::take(&held, 60, 100).is_some());
        assert_eq!(held.load(Ordering::Relaxed), 0);
    }
}
