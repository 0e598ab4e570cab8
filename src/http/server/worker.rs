//! Serves a connection for as long as it has something to do, then puts it back.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use nix::sys::epoll::EpollFlags;

use super::connection::{Connection, Phase, Reservation};
use super::framing::{Buffer, Progress, Reject};
use super::response::{Connection as Keep, HttpDate, Outgoing};
use super::table::{Job, NotParked, Shared};
use super::{Later, Outcome, Response, ServerHandle, Stream};
use crate::error::Kind;
use crate::thread;

/// Requests that one connection gets answered in a row before others have their turn.
const MAX_RUN: usize = 32;
/// Dispatches in a row of a request that cannot be parked because of ever new wakes; then it is
/// answered as expired.
const MAX_LOOKS: usize = 8;
/// Bodies and responses up to this size do not count against the memory that all may hold.
const SMALL_BYTES: usize = 16 << 10;
/// What a client sends before its body if it is careful.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub(super) struct Worker {
    server: ServerHandle,
    /// Room for the bytes of a connection that holds none, so that most requests allocate nothing.
    buffer: Buffer,
    /// Room for the head of a response.
    head: Vec<u8>,
    date: HttpDate,
}

/// What to do next with the connection in hand.
enum Step {
    Read,
    Dispatch {
        expired: bool,
    },
    Write(Outgoing),
    /// The next piece of a stream.
    Feed {
        quiet: bool,
    },
    Drain {
        left: usize,
    },
    /// Back to the table, with phase and deadline set.
    Wait(EpollFlags),
    Park {
        key: String,
        seen: u64,
    },
    Await(Later),
    Close,
}

impl Worker {
    pub(super) fn new(server: ServerHandle) -> Self {
        Self { server, buffer: Buffer::default(), head: Vec::new(), date: HttpDate::default() }
    }

    fn shared(&self) -> &Shared {
        &self.server.0
    }

    pub(super) fn run(mut self) {
        loop {
            match self.server.0.next_job() {
                Job::Serve(connection, events) => self.serve(connection, events),
                Job::Nothing => {}
                Job::End => return,
            }
        }
    }

    fn serve(&mut self, mut connection: Box<Connection>, events: EpollFlags) {
        let is_gone = events.intersects(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let mut step = match std::mem::replace(&mut connection.phase, Phase::Reading) {
            Phase::Parked { .. } | Phase::Ready { .. } if is_gone => Step::Close,
            Phase::Parked { key, seen } => Step::Park { key, seen },
            Phase::Ready { expired } if connection.rest.is_some() => Step::Feed { quiet: expired },
            Phase::Ready { expired } => Step::Dispatch { expired },
            Phase::Awaiting(later) if !later.is_overdue => Step::Await(later),
            Phase::Awaiting(later) => {
                let response = later.cell.close().unwrap_or_else(later.late);
                self.respond(&mut connection, response)
            }
            Phase::Reading => Step::Read,
            Phase::Writing(outgoing) => Step::Write(outgoing),
            Phase::Draining { left } => Step::Drain { left },
        };
        let (mut answered, mut looks) = (0, 0);
        loop {
            step = match step {
                Step::Read if answered >= MAX_RUN => {
                    self.wait_for_request(&mut connection, EpollFlags::EPOLLOUT)
                }
                Step::Read => self.read(&mut connection),
                Step::Dispatch { expired } => {
                    looks += 1;
                    self.dispatch(&mut connection, expired || looks > MAX_LOOKS)
                }
                Step::Write(outgoing) => {
                    (answered, looks) = (answered + 1, 0);
                    self.write(&mut connection, outgoing)
                }
                Step::Feed { .. } if answered >= MAX_RUN => self.let_others(&mut connection),
                Step::Feed { quiet } => self.feed(&mut connection, quiet),
                Step::Drain { left } => drain(&mut connection, left),
                Step::Wait(interest) => {
                    self.take_buffer_back(&mut connection);
                    return self.shared().give(connection, interest);
                }
                Step::Park { key, seen } => {
                    let expires = connection.deadline;
                    match self.shared().park(connection, key, expires, seen) {
                        None => return,
                        Some(NotParked { connection: back, expired }) => {
                            connection = back;
                            match connection.rest.is_some() {
                                // The server stops, or there is no room to wait.
                                true if expired => Step::Close,
                                true => Step::Feed { quiet: false },
                                false => Step::Dispatch { expired },
                            }
                        }
                    }
                }
                Step::Await(later) => match self.shared().await_answer(&self.server, connection, later) {
                    None => return,
                    Some((back, response)) => {
                        connection = back;
                        self.respond(&mut connection, response)
                    }
                },
                Step::Close => {
                    self.take_buffer_back(&mut connection);
                    return self.shared().close(connection);
                }
            };
        }
    }

    /// Lends the worker's buffer to a connection that has none.
    fn lend_buffer(&mut self, connection: &mut Connection) {
        if connection.buffer.room() == 0 {
            connection.buffer = std::mem::take(&mut self.buffer);
        }
    }

    fn take_buffer_back(&mut self, connection: &mut Connection) {
        if connection.buffer.is_empty() {
            connection.buffer.reset();
            let buffer = std::mem::take(&mut connection.buffer);
            if buffer.room() > self.buffer.room() {
                self.buffer = buffer;
            }
        }
    }

    /// Looks at what is in the buffer and reads what is there, until the request is complete.
    fn read(&mut self, connection: &mut Connection) -> Step {
        self.lend_buffer(connection);
        loop {
            let had_head = connection.framing.head > 0;
            let progress = connection.framing.advance(&mut connection.buffer, &self.shared().limits);
            let wanted = match progress {
                Err(reject) => return self.reject(connection, reject),
                Ok(Progress::Complete) => {
                    connection.received = self.shared().now();
                    return Step::Dispatch { expired: false };
                }
                Ok(Progress::More(wanted)) => wanted,
            };
            if !had_head
                && connection.framing.head > 0
                && let Err(step) = self.prepare_body(connection)
            {
                return step;
            }
            match connection.stream.read(connection.buffer.space(wanted)) {
                Ok(0) => return Step::Close,
                Ok(count) => connection.buffer.add(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.wait_for_request(connection, EpollFlags::EPOLLIN);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Step::Close,
            }
        }
    }

    /// The head is read and the body is not: is there memory for it, and may it be sent?
    fn prepare_body(&mut self, connection: &mut Connection) -> Result<(), Step> {
        let bytes = connection.framing.body_bound(&self.shared().limits);
        if bytes > SMALL_BYTES {
            connection.reservation =
                Reservation::take(&self.shared().held, bytes, self.shared().limits.held_bytes);
            if connection.reservation.is_none() {
                let reject = Reject {
                    status: 503,
                    kind: Kind::Full,
                    message: "Too many large requests are under way. Try again in a moment.",
                };
                return Err(self.reject(connection, reject));
            }
        }
        // A socket with no room for these few bytes belongs to a client that reads nothing.
        if connection.framing.expects_continue
            && !matches!(connection.stream.write(CONTINUE), Ok(written) if written == CONTINUE.len())
        {
            return Err(Step::Close);
        }
        Ok(())
    }

    fn wait_for_request(&self, connection: &mut Connection, interest: EpollFlags) -> Step {
        let (now, limits) = (self.shared().now(), &self.shared().limits);
        connection.deadline = if connection.buffer.is_empty() {
            now + limits.idle_time
        } else {
            *connection.began.get_or_insert(now) + limits.request_time
        };
        Step::Wait(interest | EpollFlags::EPOLLIN)
    }

    fn dispatch(&mut self, connection: &mut Connection, mut expired: bool) -> Step {
        loop {
            let seen = self.shared().wakes();
            let outcome = thread::contained(|| connection.ask(expired));
            connection.attempt = connection.attempt.saturating_add(1);
            let response = match outcome {
                Ok(Some(Outcome::Respond(response))) => response,
                Ok(Some(Outcome::Park { key, wait })) if !expired => {
                    connection.deadline = connection.received.saturating_add(wait);
                    if connection.deadline > self.shared().now() {
                        return Step::Park { key, seen };
                    }
                    expired = true;
                    continue;
                }
                Ok(Some(Outcome::Later(later))) => {
                    connection.deadline = connection.received.saturating_add(later.wait);
                    return Step::Await(later);
                }
                Ok(Some(Outcome::Stream(stream))) => return self.begin_stream(connection, stream),
                Ok(outcome) => {
                    let what =
                        outcome.map_or("was read differently a second time", |_| "was parked when expired");
                    log::error!("an HTTP request {what}");
                    internal_error()
                }
                Err(panic) => {
                    log::error!("an HTTP handler panicked: {panic}");
                    internal_error()
                }
            };
            return self.respond(connection, response);
        }
    }

    fn begin_stream(&mut self, connection: &mut Connection, mut stream: Stream) -> Step {
        let (server, key) = (self.server.clone(), stream.key.clone());
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let date = self.date.at(self.server.0.wall());
        let outgoing = Outgoing::beginning(stream.content_type, (head, date));
        connection.deadline = self.shared().now() + self.shared().limits.response_time;
        if !connection.framing.is_head_request {
            stream.source.begin(Box::new(move || server.wake(&key)));
            connection.rest = Some(Box::new(stream));
        }
        Step::Write(outgoing)
    }

    /// A client may take as long for a piece as between two requests: it holds no more than that piece.
    fn feed(&mut self, connection: &mut Connection, quiet: bool) -> Step {
        let seen = self.shared().wakes();
        let Some(stream) = connection.rest.as_mut().filter(|_| !self.server.0.is_stopping()) else {
            return Step::Close;
        };
        match thread::contained(|| stream.source.next(quiet)) {
            Ok(Some(piece)) if piece.is_empty() => {
                connection.deadline = self.server.0.now() + stream.pause;
                Step::Park { key: stream.key.clone(), seen }
            }
            Ok(Some(piece)) => {
                connection.deadline = self.shared().now() + self.shared().limits.idle_time;
                Step::Write(Outgoing::piece(piece))
            }
            Ok(None) => Step::Close,
            Err(panic) => {
                log::error!("the source of an HTTP stream panicked: {panic}");
                Step::Close
            }
        }
    }

    /// Puts a stream that always has more behind the other connections.
    fn let_others(&self, connection: &mut Connection) -> Step {
        connection.phase = Phase::Ready { expired: false };
        connection.deadline = self.shared().now() + self.shared().limits.idle_time;
        Step::Wait(EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP)
    }

    fn respond(&mut self, connection: &mut Connection, response: Response) -> Step {
        let framing = &connection.framing;
        let keep = match (framing.keep_alive && !self.shared().is_stopping(), framing.is_http_1_0) {
            (false, _) => Keep::Close,
            (true, true) => Keep::KeepAlive,
            (true, false) => Keep::Open,
        };
        self.outgoing(connection, response, keep)
    }

    /// Answers without the handler; the rest of the request is not understood.
    fn reject(&mut self, connection: &mut Connection, reject: Reject) -> Step {
        let mut response = Response::error(reject.status, reject.kind, reject.message);
        if reject.status == 503 {
            response = response.with_header("Retry-After", "1");
        }
        self.outgoing(connection, response, Keep::Close)
    }

    fn outgoing(&mut self, connection: &mut Connection, response: Response, keep: Keep) -> Step {
        let now = self.server.0.wall();
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        let is_head = connection.framing.is_head_request;
        let outgoing = Outgoing::new(response, &self.server, keep, is_head, (head, self.date.at(now)));
        connection.deadline = self.shared().now() + self.shared().limits.response_time;
        Step::Write(outgoing)
    }

    fn write(&mut self, connection: &mut Connection, mut outgoing: Outgoing) -> Step {
        loop {
            match connection.stream.write_vectored(&outgoing.rest()) {
                Ok(0) => return Step::Close,
                Ok(count) if outgoing.advance(count) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.wait_for_room(connection, outgoing);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Dropped, the response tells its callback that it was not sent.
                Err(_) => return Step::Close,
            }
        }
        let keep = outgoing.connection;
        let head = outgoing.finish();
        if head.capacity() > 0 {
            self.head = head;
        }
        if connection.rest.is_some() {
            connection.reservation = None;
            return Step::Feed { quiet: false };
        }
        let has_unread = !connection.framing.is_complete();
        if keep != Keep::Close {
            connection.next_request();
            return if connection.buffer.is_empty() {
                self.wait_for_request(connection, EpollFlags::EPOLLIN)
            } else {
                Step::Read
            };
        }
        if !has_unread && connection.buffer.bytes().len() == connection.framing.total() {
            return Step::Close;
        }
        // The client may still be sending: it gets the end of the answer first.
        if connection.stream.shutdown(Shutdown::Write).is_err() {
            return Step::Close;
        }
        let (phase, deadline) = Shared::draining(self.shared().now());
        connection.deadline = deadline;
        match phase {
            Phase::Draining { left } => Step::Drain { left },
            _ => Step::Close,
        }
    }

    fn wait_for_room(&self, connection: &mut Connection, outgoing: Outgoing) -> Step {
        if connection.reservation.is_none() && outgoing.size() > SMALL_BYTES {
            let (held, limit) = (&self.shared().held, self.shared().limits.held_bytes);
            connection.reservation = Reservation::take(held, outgoing.size(), limit);
            if connection.reservation.is_none() {
                log::warn!("a client that reads slowly was cut off, others hold too much memory");
                return Step::Close;
            }
        }
        connection.phase = Phase::Writing(outgoing);
        Step::Wait(EpollFlags::EPOLLOUT)
    }
}

/// Throws away what the client still sends.
fn drain(connection: &mut Connection, mut left: usize) -> Step {
    connection.buffer.reset();
    loop {
        match connection.stream.read(connection.buffer.space(1)) {
            Ok(count) if count > 0 && count < left => left -= count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                connection.phase = Phase::Draining { left };
                return Step::Wait(EpollFlags::EPOLLIN);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return Step::Close,
        }
    }
}

pub(super) fn internal_error() -> Response {
    Response::error(500, Kind::Bug, "The request could not be handled because of an error in the daemon.")
}
